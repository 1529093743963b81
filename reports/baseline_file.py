"""The file that one commits: a baseline in JSON, a case a line, with a digest by which an edit shows.

The digest is over the content and not over its layout: a formatter may have its way with the file. It guards against
hands and half-resolved merges, not against someone who can compute it.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..harness.errors import DataError, NothingToCompare, UsageError
from .gate.baseline import SCHEMA, Baseline

MAKE = "make one of a finished run with: lisabench baseline RUN --out FILE"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes whole or not at all; an older file is replaced.

    Raises:
        UsageError: it cannot be written.
    """
    page = baseline.model_dump(mode="json", by_alias=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(_laid_out(page | {"digest": digest(page)}), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write the baseline {path}: {error.strerror}; name another file with --out") from error


def read_baseline(path: Path) -> Baseline:
    """The baseline of a file that nobody has touched since it was written.

    Raises:
        UsageError: there is no such file.
        DataError: it is no baseline, is damaged, or was edited.
        NothingToCompare: it was written by another version, with another schema.
    """
    page = _page(path)
    if page.get("schema") != SCHEMA:
        found = page.get("schema")
        raise NothingToCompare(f"{path} has schema {found!r}, and this version reads {SCHEMA!r}; {MAKE}")
    if page.pop("digest", None) != digest(page):
        raise DataError(f"{path} was edited after it was made (its digest is of another content); {MAKE}")
    try:
        return Baseline.model_validate(page)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is not a whole baseline ({where}: {first['msg']}); {MAKE}") from error


def digest(page: dict[str, Any]) -> str:
    """SHA-256 of a page without its digest, however it is laid out."""
    plain = json.dumps(page, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(plain.encode()).hexdigest()}"


def _page(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no baseline {path}; {MAKE}") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a baseline: it is no text; {MAKE}") from error
    if not text.strip():
        raise DataError(f"the baseline {path} is empty; {MAKE}")
    try:
        page = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the baseline {path} is not JSON ({error}); {MAKE}") from error
    if not isinstance(page, dict):
        raise DataError(f"{path} is not a baseline; {MAKE}")
    return page


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is no number")
    return float(number)


def _laid_out(page: dict[str, Any]) -> str:
    """A key a line and a case a line, so that a diff of two versions says where they differ."""
    lines = [f" {json.dumps(key)}: {_value(value)}" for key, value in page.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n ]"
