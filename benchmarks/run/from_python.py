"""``lisabench.run``: measure a suite from Python, as ``lisabench run`` does from a shell."""

import multiprocessing
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...harness.errors import UsageError
from ...harness.paths import user_path
from ...harness.records.run import MEMORY
from .command import DEFAULT_SUITE, Request, measure

if TYPE_CHECKING:
    import pandas

    from ...reports.run.schema import Summary

GUARD = 'if __name__ == "__main__":'
NOT_GUARDED = (
    "lisabench.run measures in processes of its own, and each of them imports your script first: "
    f"put what is to run only once below a line `{GUARD}`"
)


@dataclass(frozen=True)
class MeasuredRun:
    """A run that was measured, and what was computed from it.

    Attributes:
        folder: with the records, ``report.md`` and ``summary.json``.
        summary: what the report is made of.
    """

    folder: Path
    summary: "Summary"

    @property
    def complete(self) -> bool:
        """Whether all was measured and nothing failed."""
        return self.summary.status == "complete"

    @cached_property
    def queries(self) -> "pandas.DataFrame":
        """A row for each query, case and process, as `lisabench.load` returns them."""
        from ...reports.load import load

        return load(self.folder)

    @cached_property
    def memory(self) -> "pandas.DataFrame":
        """A row for each stage, case and process of the memory pass; sizes in bytes."""
        import pandas

        from ...harness.records.journal import current_lines

        return pandas.json_normalize(list(current_lines(self.folder / MEMORY)))


def run(
    suite: "str | Path" = DEFAULT_SUITE, out: "str | Path | None" = None, **changes: Any
) -> MeasuredRun:
    """Measure a suite, write its report, and return the run.

    Args:
        suite: a shipped suite by name, or a YAML file.
        out: the run's folder; None: a new one below ``runs/``.
        changes: what ``--set`` changes: settings of every case (``precision="bf16"``), or mappings
            for parts of the suite and for single cases (``plan={"processes": 5}``,
            ``clip={"clip_px": 336}``).

    Raises:
        LisabenchError: nothing could be begun, or the run could not go on. A query that fails is a
            status in the records, and raises nothing.
    """
    _refuse_without_guard()
    folder = None if out is None else user_path(out)
    request = Request(str(suite), flat(changes), folder, resume=False)
    session = measure(request)

    from ...reports.run.summary import read_summary
    from ...reports.run_report import write_report

    write_report(session.folder)
    return MeasuredRun(session.folder, read_summary(session.folder))


def flat(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with the keys of ``--set``: a mapping's keys follow a dot."""
    flat = {}
    for key, value in changes.items():
        if not isinstance(value, Mapping):
            flat[key] = value
            continue
        for inner, inner_value in value.items():
            flat[f"{key}.{inner}"] = inner_value
    return flat


def _refuse_without_guard() -> None:
    """Refuse a script that would run itself again in each worker.

    Raises:
        UsageError: the script has no guard, or a worker process is just importing it.
    """
    if multiprocessing.parent_process() is not None:
        raise UsageError(NOT_GUARDED)
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None:  # a notebook or a prompt, which workers do not import
        return
    if "__main__" not in Path(path).read_text(errors="replace"):
        raise UsageError(f"{path}: {NOT_GUARDED}")
