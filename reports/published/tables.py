"""The tables of README and docs that are made from published records, and the command that does it.

To write them again after the records or the code changed, in a clone of the repository:

    python -m lisabench.reports.published.tables
    python -m lisabench.reports.published.tables --check

The second command writes nothing. It names the blocks that differ, and ends with 1 if there are
any. `documents` says what a block is. To point a table at another run, change the folder in the
first line of its function.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...harness import terminal
from ...harness.errors import LisabenchError
from . import causes, claims, costs, quality
from .cards import cards_table
from .costs import Rows
from .documents import ROOT, Tables, differing_blocks, write_blocks
from .gates import PublishedGate, gates_table
from .power import power_table
from .records import published_run, published_study
from .steps import Step, steps_table
from .suites import ShippedSuite, suites_table

# The run and the study of README's table and of the frontier picture. After a change, draw it
# again: python -m lisabench.reports.published.figures
COSTS_OF_README, QUALITY_OF_README = "claims", "accuracy-tiny"
VARIANTS = ("dual", "clip", "sam", "dual-nf4", "clip-nf4", "sam-nf4")
UPSTREAM = {"dual-upstream": "as the original runs"}
COMMAND = "python -m lisabench.reports.published.tables"


# README


def costs_and_quality() -> str:
    """Return costs at 7B and the quality of tiny models, for someone who decides in two minutes."""
    run, study = published_run(COSTS_OF_README), published_study(QUALITY_OF_README)
    generated = published_run("claims-generated")
    return costs.costs_and_quality(run, study, VARIANTS, generated)


# docs/results.md


def costs_7b() -> str:
    """Return all costs of each variant, for answers that are given and for generated ones."""
    run, generated = published_run("claims"), published_run("claims-generated")
    as_used = {"clip-nf4-as-used": "in one forward pass"}
    return costs.cost_table([Rows(run), Rows(generated, remarks=as_used)])


def causes_7b() -> str:
    """Return what sharing and NF4 cause, alone and together, teacher-forced."""
    run = published_run("claims")
    return causes.causes_table(run, ["clip-nf4", "sam-nf4"])


def causes_execution_7b() -> str:
    """Return what running eagerly, and then as CUDA graphs, saves the original."""
    run = published_run("claims-execution")
    to_graphs = [
        Step("eagerly, without the original's habits", "dual-eager"),
        Step("each stage as one CUDA graph of compiled layers", "dual"),
    ]
    return steps_table(run, "dual-upstream", to_graphs)


def causes_generated_7b() -> str:
    """Return what sharing and NF4 cause, alone and together, with generated answers."""
    run = published_run("claims-generated")
    return causes.causes_table(run, ["clip-nf4", "sam-nf4"])


def graphs_7b() -> str:
    """Return the times of each case as CUDA graphs, teacher-forced."""
    run = published_run("graphs-7b")
    columns = (
        costs.QUERY_MS,
        costs.stage_column("vision"),
        costs.stage_column("llm"),
        costs.GPU_AT_WORK,
        costs.TIME_COMPARED,
    )
    cases = ("dual", "clip", "sam", "clip-nf4", "dual-upstream")
    return costs.table_of_cases(columns, [Rows(run, cases, UPSTREAM)])


def answers_7b() -> str:
    """Return the times of each case as CUDA graphs, with generated answers."""
    run = published_run("answers-7b")
    columns = (costs.QUERY_MS, costs.FURTHER_TOKEN_MS, costs.GPU_AT_WORK, costs.TIME_COMPARED)
    return costs.table_of_cases(columns, [Rows(run, remarks=UPSTREAM)])


def throughput_7b() -> str:
    """Return the queries per second of each case and batch."""
    run = published_run("throughput-7b")
    columns = (
        costs.BATCH,
        costs.QUERIES_PER_SECOND,
        costs.THROUGHPUT_COMPARED,
        costs.BATCH_LATENCY,
        costs.QUERY_MEMORY,
    )
    return costs.table_of_cases(columns, [Rows(run, remarks=UPSTREAM)])


def which_card_runs() -> str:
    """Return which card answers queries, for each case at 7B and 13B."""
    return cards_table([published_run("cards-7b")], "case")


def which_card_trains() -> str:
    """Return which card trains 7B, for each training."""
    return cards_table([published_run("training-7b")], "training")


def claims_7b() -> str:
    """Return the claims of the modified LISA, each with its verdict."""
    run, generated = published_run("claims"), published_run("claims-generated")
    first = published_run("claims-first")
    trainings = published_run("training-7b")
    return claims.claims_table(
        [
            claims.Measured(run, "teacher-forced", other=first, without=("training of 7B",)),
            claims.Measured(generated, "generated"),
            claims.Measured(trainings, "training", only=("training of 7B",)),
        ]
    )


# docs/gate.md


def gates() -> str:
    """Return the gates on an H200: what was planted, and what the gate said."""
    folder = "gate-gpu/one-core"
    return gates_table(
        [
            PublishedGate("nothing", f"{folder}/unchanged"),
            PublishedGate("13.4 ms of sleep a query, 64 MiB of weights", f"{folder}/planted"),
            PublishedGate("nothing", f"{folder}/unchanged-again"),
        ],
        case="dual",
    )


def gate_power() -> str:
    """Return what gates of eager stages find, at the noise of those on an H200."""
    folder = "gate-gpu/one-core"
    unchanged = [f"{folder}/unchanged", f"{folder}/unchanged-again"]
    return power_table(unchanged, case="dual", changes=[0, 0.1])


# docs/suites.md


def what_suites_need() -> str:
    """Return what each shipped suite needs."""
    of_training = ", reserved by the allocator and all outside of it"
    return suites_table(
        [
            ShippedSuite("tiny", "CPU or GPU", "packaged"),
            ShippedSuite("claims-tiny", "CPU", memory="none"),
            ShippedSuite("claims", "GPU", folder="claims"),
            ShippedSuite("claims-generated", "GPU", folder="claims-generated"),
            ShippedSuite("claims-execution", "GPU", folder="claims-execution"),
            ShippedSuite("claims-sizes", "GPU"),
            ShippedSuite("claims-answers", "GPU"),
            ShippedSuite("factorial-tiny", "CPU or GPU"),
            ShippedSuite(
                "h200-lisa7b", "GPU", folder="h200", duration="not measured: done in parts"
            ),
            ShippedSuite("graphs-7b", "GPU", folder="graphs-7b"),
            ShippedSuite("answers-7b", "GPU", folder="answers-7b"),
            ShippedSuite("batch-7b", "GPU"),
            ShippedSuite("resolution-7b", "GPU"),
            ShippedSuite("throughput-tiny", "CPU", memory="none"),
            ShippedSuite("cards-7b", "GPU", folder="cards-7b"),
            ShippedSuite(
                "fits-8gb", "GPU", folder="fits-8gb", duration="not measured: time was left out"
            ),
            ShippedSuite("gate-gpu", "GPU", memory="not measured as CUDA graphs yet"),
            ShippedSuite("study-costs", "CPU or GPU", folder="accuracy-tiny/costs"),
            ShippedSuite("training-tiny", "CPU", memory="none"),
            ShippedSuite("training-7b", "GPU", folder="training-7b", remark=of_training),
        ]
    )


# docs/study.md


def variants() -> str:
    """Return the quality of each variant of the study."""
    study = published_study("accuracy-tiny")
    learns = {
        "dual": "everything",
        "sam": "bridge, projector, `text_hidden_fcs`, embeddings, head",
        "sam-decoder": "the same and the mask decoder",
        "clip-fine": "as `sam-decoder`; grid of 16 x 16",
        "clip-upsampling": "as `sam-decoder`; larger bridge",
        "clip-rich": "as `clip-upsampling`, and LoRA",
        "dual-small": "everything; smaller SAM, from random weights",
        "clip-decoder": "as `sam-decoder`",
        "clip-lora": "as `clip-decoder`, and LoRA",
        "clip-crop": "as `sam`; sees the crop only",
        "clip": "as `sam`",
        "clip-distilled": "as `sam`; first copies SAM's features",
    }
    return quality.variants_table(study, learns)


def quality_by_shape() -> str:
    """Return the quality of two variants by the aspect ratio of the image."""
    study = published_study("accuracy-tiny")
    return quality.slices_table(study, "shape", ["sam", "clip-fine"])


TABLES: Tables = {
    "costs-and-quality": costs_and_quality,
    "costs-7b": costs_7b,
    "causes-7b": causes_7b,
    "causes-generated-7b": causes_generated_7b,
    "causes-execution-7b": causes_execution_7b,
    "graphs-7b": graphs_7b,
    "answers-7b": answers_7b,
    "throughput-7b": throughput_7b,
    "which-card-runs": which_card_runs,
    "which-card-trains": which_card_trains,
    "claims-7b": claims_7b,
    "gates": gates,
    "gate-power": gate_power,
    "what-suites-need": what_suites_need,
    "variants": variants,
    "quality-by-shape": quality_by_shape,
}


def main(arguments: Sequence[str] | None = None, root: Path = ROOT, tables: Tables = TABLES) -> int:
    """Write the tables again, or check them, and return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a block differs")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            differing = differing_blocks(root, tables)
            for block in differing:
                terminal.say(f"{block.place}: the table {block.name} is not that of its records")
            if differing:
                terminal.note(f"write them again: {COMMAND}")
            return 1 if differing else 0
        for document in write_blocks(root, tables):
            terminal.say(document.relative_to(root))
    except LisabenchError as error:
        terminal.note(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
