"""Suites: what is compared, on which data, and how often.

The shipped suites are YAML files in ``suites/``. A file has these keys:

title: ...                     one line, shown in the report
reference: dual                the case that the others are compared with
data: {count: 48}              scenes that the package generates, or root: FOLDER in ReasonSeg's
                               format
plan: {processes: 3}           see `Plan`. `timed_queries` (48): the first so many queries are
                               timed, in every process; `scenario` (latency): one at a time, or for
                               throughput `batch` (1) at a time; `quality_queries` (all): the first
                               so many are evaluated for quality, once for each case,
                               `quality_batch` (8) at a time; 0: there is no quality pass, and
                               scores are of the timed queries
metrics: [gIoU, cIoU]          which scores the report's table shows, a row each
defaults: {adapter: lisa}      settings that all cases share
cases: {NAME: {adapter: NAME, SETTING: VALUE}}
                               a case may have a `batch` of its own, in place of the plan's
sweep: {SETTING: [VALUE, ...]} each case is expanded into one for each combination of these values;
                               see `sweep`
groups: {NAME: [CASE, ...]}    for cases that do not all fit at once, or do not all have one
                               reference: the cases of a group take turns, and are compared with the
                               first of them. ``teams`` is the older spelling of this key, and the
                               one in ``run.json``
factors: [SETTING, ...]        for cases that differ in several of these settings, the report says
                               what each of them causes; {NAME: [SETTING, ...]} if one factor
                               changes several settings
controls: {NAME: {adapter: NAME}}   trivial baselines: evaluated for quality, never compared in time
claims: [{claim: ..., quantity: NAME, candidate: CASE, at_most: BOUND}]
                               see `claim`; or the name or file of a suite that lists them, for
                               cases of the same names
trainings: {NAME: {OPTION: VALUE}}
                               options of `lisabench train`; each is run with several seeds, before
                               all else
cards: [8GB, 16GB]             cards of which the report says, for each case and training, whether
                               it runs on them; see `reports.cards`
gate: {end_to_end: 0.05}       what `lisabench check` allows; see `reports.gate.thresholds`

A `Suite` is what the file says. `resolve` makes a `ResolvedSuite` of it, which everything else
works with.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from ..harness.paths import EMPTY, user_source
from ..harness.text import is_folder_name, visible
from ..reports.gate.thresholds import Gate
from .claim import Claim

# Keys of a case that are none of its adapter's settings.
ADAPTER = "adapter"
BATCH = "batch"
AUTO: Final = "auto"  # a batch that the run chooses itself
ENCODER_BATCH = "encoder_batch"  # an adapter that has this setting can encode fewer images at once

Batch = int | Literal["auto"]
CountOrAuto = int | Literal["auto"]
CountOrAll = int | Literal["all"]
Gallery = int | Literal["all", "none"]


def as_batch(value: Any) -> Batch:
    """Return a value that is a number of queries, or ``auto``.

    Raises:
        ValueError: it is neither.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value == AUTO or (is_number and value >= 1):
        return value
    raise ValueError(f"batch is {value!r}; expected a number of queries from 1, or {AUTO}")


def as_count_or_auto(value: Any) -> CountOrAuto:
    """Return a value that is a number from 1, or ``auto``.

    Raises:
        ValueError: it is neither.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value == AUTO or (is_number and value >= 1):
        return value
    raise ValueError(f"expected a number from 1, or {AUTO}, not {value!r}")


def as_count_or_all(value: Any) -> CountOrAll:
    """Return a value that is a number of queries from 1, or ``all``.

    Raises:
        ValueError: it is neither.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value == "all" or (is_number and value >= 1):
        return value
    raise ValueError(f"expected a number of queries from 1, or all, not {value!r}")


def as_gallery(value: Any) -> Gallery:
    """Return a value that is a number of queries, ``all`` or ``none``.

    Raises:
        ValueError: it is none of these.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value in ("all", "none") or (is_number and value >= 0):
        return value
    raise ValueError(f"gallery is {value!r}; expected a number of queries from 0, all or none")


LONGEST_NAME = 200  # characters


class Strict(BaseModel):
    """A section of a suite file: it cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _on_one_line(title: str) -> str:
    """Return a title on one line, as a report shows it."""
    line = " ".join(title.split())
    if visible(line) != line:
        raise ValueError(f"expected a text without control characters, not {visible(line)}")
    return line


def _named(name: str) -> str:
    """Return a name that can stand in tables and messages: one line, and not too long."""
    if not name.strip() or visible(name) != name or len(name) > LONGEST_NAME:
        raise ValueError(
            f"expected a name of 1 to {LONGEST_NAME} characters on one line, not "
            f"{visible(name[:LONGEST_NAME])!r}"
        )
    return name


def _name_of_a_folder(name: str) -> str:
    """Return a name that is one step of a path, so that no file is written elsewhere."""
    if not is_folder_name(_named(name)):
        raise ValueError(f"expected the name of a folder, without / and \\, not {name!r}")
    return name


def _given(path: Any) -> Any:
    """Return a path that is not empty. As a `Path`, an empty one would be the current folder."""
    if path == "":
        raise ValueError(EMPTY)
    return path


Name = Annotated[str, AfterValidator(_named)]
FolderName = Annotated[str, AfterValidator(_name_of_a_folder)]
Title = Annotated[str, AfterValidator(_on_one_line)]


def _as_source(source: Any) -> Any:
    """Return where data come from, as text; a folder may also be given as a `Path`."""
    return str(source) if isinstance(source, Path) else _given(source)


DataSource = Annotated[str, BeforeValidator(_as_source), AfterValidator(user_source)]


class Data(Strict):
    """Which queries are evaluated. Without `root`, the package generates scenes."""

    root: DataSource | None = Field(
        default=None,
        description="a folder in ReasonSeg's format, holding the split's folder; or another layout "
        "of `lisabench list layouts`",
    )
    split: FolderName | None = Field(
        default=None, description="the split evaluated; val, or test for weights that have seen val"
    )
    count: int = Field(
        default=48, gt=0, description="queries to generate, where the package generates them"
    )
    seed: int = Field(default=0, ge=0, description="seed of the scenes")
    image_px: tuple[int, int] | None = Field(
        default=None,
        description="width and height of generated pictures; none: 240 to 640 a side, each its own",
    )
    texts: Literal["first", "all"] = Field(
        default="first", description="one wording of each query, or all"
    )
    limit: int | None = Field(
        default=None, gt=0, description="evaluate only the first so many queries"
    )
    protocol: str | None = Field(
        default=None,
        description="the protocol of the field that the report goes by, see `lisabench list "
        "protocols`; found by the data's layout or name; none: no protocol",
    )


class Plan(Strict):
    """How the measurement is laid out."""

    processes: int = Field(
        default=3,
        ge=0,
        description="fresh processes per case for timing; 0: no time is measured",
    )
    block: int = Field(
        default=8, gt=0, description="queries in a row before the next case takes its turn"
    )
    scenario: Literal["latency", "throughput"] = Field(
        default="latency",
        description="whether queries are timed one at a time, or as many as get through",
    )
    batch: Annotated[Batch, BeforeValidator(as_batch)] = Field(
        default=1,
        description="queries that the timed rounds evaluate at once, where a case has no batch; "
        "auto: chosen before by trials",
    )
    decode_workers: int | None = Field(
        default=None,
        ge=0,
        description="for throughput: processes that decode images while the model works; 0: none",
    )
    timed_queries: int = Field(
        default=48, gt=0, description="queries that every process is timed with, at most"
    )
    quality_queries: int | None = Field(
        default=None,
        ge=0,
        description="queries of the quality pass, at most; 0: none, scores are of timed queries",
    )
    quality_batch: int = Field(
        default=8, gt=0, description="queries that the quality pass evaluates at once"
    )
    quality_processes: Annotated[CountOrAuto, BeforeValidator(as_count_or_auto)] = Field(
        default=AUTO,
        description="processes of a case side by side in the quality pass; auto: one on each "
        "visible GPU, on a CPU two",
    )
    quality_threads: Annotated[CountOrAuto, BeforeValidator(as_count_or_auto)] = Field(
        default=AUTO,
        description="threads of each process of the quality pass on a CPU; auto: half of the cores",
    )
    quality_reuse: bool = Field(
        default=True,
        description="whether the quality pass encodes an image once for queries that follow each "
        "other",
    )
    warmup: int = Field(
        default=12, ge=0, description="most queries, or batches, to warm up with, per process"
    )
    memory_processes: int = Field(
        default=3, ge=0, description="fresh processes per case for the memory pass; 0: none"
    )
    memory_queries: Annotated[CountOrAll, BeforeValidator(as_count_or_all)] = Field(
        default=4, description="queries of the memory pass, per process; all: every query"
    )
    beside: bool = Field(
        default=True, description="whether the roofline and the GPU's own time are measured as well"
    )
    gallery: Annotated[Gallery, BeforeValidator(as_gallery)] = Field(
        default="all",
        description="queries whose images and masks are kept for the report: so many, all or none",
    )
    training_seeds: int = Field(
        default=3, gt=0, description="seeds that each training is carried out with"
    )
    gpu_memory: str | None = Field(
        default=None, description="size of the card that each process must fit, such as 8GB"
    )
    save_masks: bool = Field(default=False, description="keep every mask, run-length encoded")
    profile: bool = Field(
        default=False, description="write a trace of one warm query of each case, beside the run"
    )
    time_limit_s: float = Field(
        default=600, gt=0, description="for a build with its warm-up, or a block"
    )


def _each_setting_is_a_factor(factors: Any) -> Any:
    """Return factors as a mapping; in a list, each setting is a factor of its own."""
    if isinstance(factors, list | tuple):
        for setting in factors:
            if not isinstance(setting, str):
                raise ValueError(f"expected names of settings, and not {setting!r}")
        return {setting: (setting,) for setting in factors}
    return factors


def _as_swept_values(values: Any) -> Any:
    """Return the values of a swept setting, if they are a list of at least one."""
    if isinstance(values, list | tuple) and values:
        return values
    raise ValueError(f"expected a list of values, such as [1, 2], and not {values!r}")


SweptValue = bool | int | float | str
SweptValues = Annotated[tuple[SweptValue, ...], BeforeValidator(_as_swept_values)]
Factors = Annotated[dict[Name, tuple[str, ...]], BeforeValidator(_each_setting_is_a_factor)]


class Suite(BaseModel):
    """A suite as its file says it, with the changes of the command line.

    It checks the types of its parts. That names are known and parts agree is checked by
    `suite_file.validate`.
    """

    model_config = Strict.model_config

    name: FolderName
    title: Title
    reference: str
    data: Data = Data()
    plan: Plan = Plan()
    metrics: tuple[str, ...] = ("gIoU", "cIoU", "mIoU")
    defaults: dict[str, Any] = {}
    cases: dict[Name, dict[str, Any]]
    sweep: dict[str, SweptValues] = {}
    groups: dict[Name, list[str]] = Field(
        default={}, validation_alias=AliasChoices("groups", "teams"), serialization_alias="teams"
    )
    factors: Factors = {}
    controls: dict[Name, dict[str, Any]] = {}
    claims: tuple[Claim, ...] = ()
    trainings: dict[str, dict[str, Any]] = {}
    cards: tuple[str, ...] = ()
    gate: Gate = Gate()

    def as_recorded(self) -> dict[str, Any]:
        """Return the suite as ``run.json`` holds it, with the older key ``teams``."""
        recorded = self.model_dump(mode="json", by_alias=True)
        if not self.sweep:
            # Versions from before there were sweeps refuse the key.
            del recorded["sweep"]
        if not self.cards:
            # Likewise those from before there were cards.
            del recorded["cards"]
        if self.data.protocol is None:
            # Likewise those from before there were protocols.
            del recorded["data"]["protocol"]
        return recorded


KEYS = (*Suite.model_fields, "teams")
