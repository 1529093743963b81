"""The options of ``lisabench train``, on the command line and in a YAML file. Cheap to import.

Names are Hugging Face's if it has one. The spellings of the modified LISA's tool, and many of
the original's ``train_ds.py``, are accepted too; each with ``-`` or ``_``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer

from ...harness.errors import UsageError

Option = typer.Option
# What the modified LISA's tool is told of its two models, and ours reads from one folder.
SEPARATE_MODELS = ("vlm_name", "sam_name")


@dataclass(frozen=True)
class TrainingOptions:
    """Every option of ``lisabench train``. An option's help is its documentation."""

    __pydantic_config__: ClassVar = {"allow_inf_nan": False}

    preset: Annotated[
        str | None,
        Option(
            help="Sizes of the model; see `lisabench list presets`. Default: the weights', or tiny."
        ),
    ] = None
    weights: Annotated[
        str,
        Option(
            "--weights", "--model_name_or_path", help="Weights to start from: a folder or hub id."
        ),
    ] = "random"
    vision: Annotated[
        str | None,
        Option(
            help="dual, clip or sam. Default: the weights' own, where the recipe is for it, or the "
            "first variant of the recipe."
        ),
    ] = None
    use_vlm_vision: Annotated[
        bool, Option("--use_vlm_vision", help="The same as --vision clip.")
    ] = False
    dtype: Annotated[
        str | None,
        Option(
            "--dtype", "--precision", help="fp32, bf16 or fp16. Default: fp32 for tiny, else bf16."
        ),
    ] = None
    quantization: Annotated[
        str | None, Option(help="none, nf4 or int8. Default: none for tiny, else nf4.")
    ] = None
    no_quantization: Annotated[
        bool, Option("--no_quantization", help="The same as --quantization none.")
    ] = False
    device: Annotated[
        str, Option(help="auto, cpu, cuda, or one of several GPUs, such as cuda:1.")
    ] = "auto"
    gpu_memory: Annotated[
        str | None,
        Option(
            "--gpu_memory",
            metavar="SIZE",
            help="Cap each process to a card of this size, such as 8GB.",
        ),
    ] = None

    data: Annotated[
        list[str] | None,
        Option(
            "--data",
            "--data_dir",
            metavar="SRC[:WEIGHT]",
            help="A folder in ReasonSeg's format, or another layout. Repeat it for several. "
            "Default: synthetic scenes.",
        ),
    ] = None
    val_data: Annotated[
        str | None,
        Option(
            "--val_data", "--eval_data", help="Data to evaluate on. Default: the first of --data."
        ),
    ] = None
    texts: Annotated[
        str,
        Option(help="Wordings of a query to train on: first; or all, each as a query of its own."),
    ] = "first"
    split: Annotated[str, Option("--split", "--train_split", help="The split to train on.")] = (
        "train"
    )
    val_split: Annotated[
        str, Option("--val_split", "--eval_split", help="The split to evaluate on.")
    ] = "val"
    max_train_samples: Annotated[
        int | None,
        Option("--max_train_samples", min=1, help="Default: all, or 1000 synthetic scenes."),
    ] = None
    max_val_samples: Annotated[
        int | None,
        Option("--max_val_samples", min=1, help="Default: all, or 200 synthetic scenes."),
    ] = None
    dataloader_num_workers: Annotated[
        int,
        Option(
            "--dataloader_num_workers",
            "--num_workers",
            "--workers",
            help="Processes that read data.",
        ),
    ] = 0

    recipe: Annotated[
        str | None, Option(help="What is trained; see `lisabench list recipes`. Default: original.")
    ] = None
    losses: Annotated[
        str | None, Option(help="Losses by name, such as described. Default: the recipe's.")
    ] = None
    ce_weight: Annotated[
        float | None,
        Option(
            "--ce_weight",
            "--ce_loss_weight",
            help="Weight of the cross-entropy loss, in place of that of --losses.",
        ),
    ] = None
    bce_weight: Annotated[
        float | None,
        Option(
            "--bce_weight",
            "--bce_loss_weight",
            help="Weight of the BCE loss, in place of that of --losses.",
        ),
    ] = None
    dice_weight: Annotated[
        float | None,
        Option(
            "--dice_weight",
            "--dice_loss_weight",
            help="Weight of the Dice loss, in place of that of --losses.",
        ),
    ] = None
    iou_weight: Annotated[
        float | None,
        Option("--iou_weight", help="Weight of the IoU loss, in place of that of --losses."),
    ] = None
    ignored: Annotated[
        str,
        Option(help="What ignored pixels count as: background, as in the original, or left_out."),
    ] = "background"
    lora_r: Annotated[int, Option("--lora_r", min=1, help="Rank of LoRA.")] = 8
    lora_alpha: Annotated[float, Option("--lora_alpha", min=0.0, help="Alpha of LoRA.")] = 16.0
    lora_dropout: Annotated[
        float, Option("--lora_dropout", min=0.0, max=1.0, help="Dropout of LoRA.")
    ] = 0.05
    lora_target_modules: Annotated[
        str,
        Option(
            "--lora_target_modules",
            help="Layers that LoRA changes, such as q_proj,k_proj,v_proj,o_proj.",
        ),
    ] = "q_proj,v_proj"
    distill_steps: Annotated[
        int, Option("--distill_steps", min=1, help="Steps of distillation in the recipe distilled.")
    ] = 200
    teacher: Annotated[
        str | None, Option(help="Weights of a dual whose SAM is distilled. Default: --weights.")
    ] = None

    epochs: Annotated[
        int | None,
        Option(
            "--epochs",
            "--num_train_epochs",
            min=1,
            help="Passes over the training data. Default: 3; 20 of the recipe described.",
        ),
    ] = None
    steps_per_epoch: Annotated[
        int | None,
        Option(
            "--steps_per_epoch",
            min=1,
            help="Steps of an epoch. Default: as many as take every query once.",
        ),
    ] = None
    max_steps: Annotated[
        int | None, Option("--max_steps", min=1, help="Stop after so many steps.")
    ] = None
    batch_size: Annotated[
        int | None,
        Option(
            "--batch_size",
            "--per_device_train_batch_size",
            min=1,
            help="Queries per process and batch. Default: 4; 1 of the recipe described.",
        ),
    ] = None
    gradient_accumulation_steps: Annotated[
        int,
        Option("--gradient_accumulation_steps", min=1, help="Batches per step."),
    ] = 1
    lr: Annotated[
        float,
        Option(
            "--lr", "--learning_rate", min=0.0, help="Largest learning rate, after the warm-up."
        ),
    ] = 3e-4
    weight_decay: Annotated[
        float | None,
        Option(
            "--weight_decay",
            help="Weight decay of AdamW. Default: 0; 0.01 of the recipe described.",
        ),
    ] = None
    max_grad_norm: Annotated[
        float,
        Option(
            "--max_grad_norm", "--grad_clip", help="Largest norm of the gradient; 0: no clipping."
        ),
    ] = 1.0
    warmup_steps: Annotated[
        int | None,
        Option("--warmup_steps", min=0, help="Default: 100, but at most a tenth of all steps."),
    ] = None
    lr_scheduler_type: Annotated[
        str,
        Option(
            "--lr_scheduler_type",
            "--scheduler",
            help="linear, cosine, constant, or another of transformers' schedules.",
        ),
    ] = "linear"
    optim: Annotated[str, Option(help="adamw, adamw_8bit or paged_adamw_8bit.")] = "adamw"
    gradient_checkpointing: Annotated[
        bool,
        Option(
            "--gradient_checkpointing",
            help="Recompute the language model's activations, to save memory.",
        ),
    ] = False
    seed: Annotated[
        int, Option(help="Seed of new weights, of the order of queries and of dropout.")
    ] = 0

    output_dir: Annotated[
        Path | None,
        Option("--output_dir", "--out", help="Folder of the records. Default: runs/train-TIME."),
    ] = None
    checkpoint_dir: Annotated[
        Path | None,
        Option(
            "--checkpoint_dir", help="Folder of the checkpoints. Default: OUTPUT_DIR/checkpoints."
        ),
    ] = None
    eval_steps: Annotated[
        int | None,
        Option(
            "--eval_steps", min=1, help="Evaluate every so many steps, besides after each epoch."
        ),
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        Option(
            "--early_stopping_patience",
            min=1,
            help="Stop after so many epochs without a better mIoU.",
        ),
    ] = None
    logging_steps: Annotated[
        int,
        Option("--logging_steps", min=1, help="Report the mean of so many steps to trackers."),
    ] = 1
    report_to: Annotated[
        str,
        Option("--report_to", help="Trackers: tensorboard, wandb or trackio, or several: A,B."),
    ] = "none"
    save_steps: Annotated[
        int | None,
        Option("--save_steps", min=1, help="Write a checkpoint every so many steps, too."),
    ] = None
    save_every: Annotated[
        int,
        Option("--save_every", min=1, help="Write the last checkpoint every so many epochs."),
    ] = 1
    save_merged: Annotated[
        bool,
        Option(
            "--save_merged", help="Checkpoints hold whole weights, and not only what was learned."
        ),
    ] = False
    save_strategy: Annotated[
        str, Option("--save_strategy", help="epoch, or no: write no checkpoints.")
    ] = "epoch"
    resume: Annotated[
        bool,
        Option(
            "--resume",
            "--resume_from_checkpoint",
            help="Continue from the last checkpoint; give the same options again.",
        ),
    ] = False


def command(carry_out: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Return a command for typer that has every option, ``--config`` and ``--set``.

    Its signature is made from `TrainingOptions`, so that an option is written down once.

    Args:
        carry_out: is called with the options that were given, by name, ``config`` and ``changes``
            included. An option that was not given is left out, so that one in the YAML file counts.
    """

    def train(**options: Any) -> None:
        given = {name: value for name, value in options.items() if value not in (None, [])}
        carry_out(given)

    hints = get_type_hints(TrainingOptions, include_extras=True)
    annotations: dict[str, Any] = {}
    for field in fields(TrainingOptions):
        annotations[field.name] = _without_default(hints[field.name], field.default)
    for name in SEPARATE_MODELS:
        annotations[name] = Annotated[
            str | None,
            Option(f"--{name}", help="Of the modified LISA's tool: see `lisabench convert`."),
        ]
    annotations["config"] = Annotated[
        Path | None, Option("--config", help="A YAML file of these options; `set: {KEY: VALUE}`.")
    ]
    annotations["changes"] = Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="A further setting of `lisa`.")
    ]
    parameters = []
    for name, annotation in annotations.items():
        parameter = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )
        parameters.append(parameter)
    # Typer reads a command's options from its signature, its annotations and its docstring.
    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    train.__annotations__ = annotations
    train.__doc__ = carry_out.__doc__
    return train


def canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the names of `TrainingOptions`, however they were spelled.

    A YAML file may use any spelling of the command line, with ``-`` or ``_``. Other names stay.

    Raises:
        UsageError: one option was given twice, by two spellings.
    """
    names = _name_by_spelling()
    options: dict[str, Any] = {}
    spelling_of: dict[str, str] = {}
    for spelling, value in given.items():
        name = names.get(str(spelling).replace("-", "_"), spelling)
        if name in options:
            raise UsageError(
                f"options of training: {spelling_of[name]} and {spelling} are the same option: "
                "give one of them"
            )
        options[name] = value
        spelling_of[name] = str(spelling)
    return options


@cache
def _name_by_spelling() -> dict[str, str]:
    hints = get_type_hints(TrainingOptions, include_extras=True)
    names = {name: name for name in SEPARATE_MODELS}
    for field in fields(TrainingOptions):
        names[field.name] = field.name
        _, option = get_args(hints[field.name])
        for declared in option.param_decls or ():
            names[declared.removeprefix("--")] = field.name
    return names


def _without_default(annotation: Any, default: Any) -> Any:
    """Return an option's annotation with the default None; its help shows the real default."""
    value_type, option = get_args(annotation)
    option.show_default = str(default) if default else False
    return Annotated[value_type | None, option]
