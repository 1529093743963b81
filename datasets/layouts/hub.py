"""Data sets of the Hugging Face Hub by id: ``hf://owner/name`` or ``hf://owner/name@revision``.

Their files are listed first. Only the parquet files of one split are downloaded, into the Hub's own
cache; `HF_HUB_OFFLINE`, `HF_HOME` and the token of `hf auth login` are honoured, since
huggingface_hub does. The revision is resolved to a commit, and that is what is read and recorded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...harness.errors import DataError, first_line
from .parquet import SUFFIX, ParquetLayout, files_of_splits, refuse_unknown_split
from .query import LaidQuery, LayoutFacts

SCHEME = re.compile(r"hf:/{1,2}")  # a path of Python's drops the second slash
ID = r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?"
IN_HUB = re.compile(rf"hf:/{{1,2}}(datasets/)?{ID}")
PLAIN = re.compile(ID)
CARD = "README.md"
SHOWN_FILES = 5


def found(source: str) -> "HubLayout | None":
    """Return the layout of a data set of the Hub; None for what is no id of the Hub.

    Raises:
        DataError: the id is misspelt, the Hub has no such data set, or it has no parquet file; or
            an id without ``hf://`` names no folder, and neither does its owner.
    """
    if not SCHEME.match(source):
        # Where the owner is a folder here, the name in it is misspelt: whoever opens it says so.
        if PLAIN.fullmatch(source) and not Path(source).parent.is_dir():
            raise DataError(
                f"{source}: there is no such folder; expected one with train, val, test inside "
                f"(for a data set of the Hugging Face Hub: did you mean hf://{source}?)"
            )
        return None
    parts = IN_HUB.fullmatch(source)
    if parts is None:
        raise DataError(f"{source}: expected hf://owner/name or hf://owner/name@revision")
    listed = _listed(parts["name"], parts["revision"])
    names = [name for name in listed.names if name.endswith(SUFFIX)]
    if not names:
        others = ", ".join(sorted(listed.names)[:SHOWN_FILES]) or "no file"
        raise DataError(
            f"{source}: has no parquet file at {listed.commit[:12]} (it has {others}); try "
            f"hf://{parts['name']}@refs/convert/parquet, where the Hub keeps a copy as parquet"
        )
    return HubLayout(source, parts["name"], listed.commit, files_of_splits(names))


@dataclass(frozen=True)
class _Listed:
    """What the Hub has under an id.

    Attributes:
        commit: that the revision is.
        names: of the files.
    """

    commit: str
    names: Sequence[str]


class HubLayout:
    """A data set of the Hub whose queries are in parquet files."""

    name = "hub"

    def __init__(self, source: str, hub_id: str, commit: str, files: dict[str, list[str]]) -> None:
        """Note what the Hub has; nothing is downloaded yet.

        Args:
            source: as the user named it.
            hub_id: ``owner/name``.
            commit: to be read.
            files: the parquet files of each split.
        """
        self._source = source
        self._hub_id = hub_id
        self._commit = commit
        self._files = files
        self._layouts: dict[str, ParquetLayout] = {}  # of the splits that are here

    def splits(self) -> Sequence[str]:
        """Return the names of the splits."""
        return list(self._files)

    @property
    def facts(self) -> LayoutFacts:
        """What the data set says of itself: of the split that was read, or else of the smallest.

        Raises:
            DataError: a file cannot be downloaded or read.
        """
        here = list(self._layouts) or [min(self._files, key=lambda split: len(self._files[split]))]
        facts = self._layout(here[0]).facts
        return replace(
            facts, source=f"hf://{self._hub_id}", revision=self._commit, licence=self._licence
        )

    def identity(self) -> str:
        """Return the id with the commit."""
        return f"hf://{self._hub_id}@{self._commit}"

    def queries(self, split: str) -> Iterator[LaidQuery]:
        """Yield the queries of a split, whose files are downloaded if they are not here.

        Raises:
            DataError: there is no such split, a file cannot be downloaded, or it is broken.
        """
        refuse_unknown_split(self._source, split, self._files)
        yield from self._layout(split).queries(split)

    def _layout(self, split: str) -> ParquetLayout:
        """Return the split with its files, downloaded."""
        if split not in self._layouts:
            names = self._files[split]
            paths = [_downloaded(self._hub_id, self._commit, name) for name in names]
            root = paths[0].parents[names[0].count("/")]
            advice = (
                "download the data set with `hf download --repo-type dataset "
                f"--revision {self._commit} {self._hub_id} --local-dir DIR`, put the pictures into "
                "DIR, and give DIR as data"
            )
            self._layouts[split] = ParquetLayout(self._source, root, {split: names}, advice)
        return self._layouts[split]

    @cached_property
    def _licence(self) -> str | None:
        """Return the licence that the card states; None if it states none or cannot be read."""
        import huggingface_hub

        try:
            card = huggingface_hub.metadata_load(_downloaded(self._hub_id, self._commit, CARD))
        except Exception:  # no card, or no YAML in it; the YAML parser has errors of its own
            return None
        licence = (card or {}).get("license")
        if isinstance(licence, list):
            licence = ", ".join(map(str, licence))
        return str(licence) if licence else None


def _listed(hub_id: str, revision: str | None) -> _Listed:
    """Return what the Hub has, or what its cache has if the Hub cannot be asked.

    Raises:
        DataError: neither has it.
    """
    import huggingface_hub

    try:
        info = huggingface_hub.dataset_info(hub_id, revision=revision)
        return _Listed(str(info.sha), [file.rfilename for file in info.siblings or []])
    except Exception as error:  # the client and its HTTP library raise many types
        reason = first_line(error)
    try:
        # No file is asked for: a snapshot that lacks some, such as those of other splits, will do.
        snapshot = huggingface_hub.snapshot_download(
            hub_id,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[],
            local_files_only=True,
        )
    except Exception:
        at = f" at {revision}" if revision else ""
        raise DataError(
            f"hf://{hub_id}: the Hugging Face Hub cannot be asked for the data set{at} ({reason}), "
            "and it is not in the cache: check the name and the connection, run `hf auth login` "
            "for data that ask for consent, and unset HF_HUB_OFFLINE"
        ) from None
    folder = Path(snapshot)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return _Listed(folder.name, names)


def _downloaded(hub_id: str, commit: str, name: str) -> Path:
    """Return a file of a data set, downloaded if it is not in the cache.

    Raises:
        DataError: the Hub cannot be reached, or the disk is full.
    """
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(hub_id, name, repo_type="dataset", revision=commit)
    except Exception as error:  # the client and its HTTP library raise many types
        raise DataError(
            f"hf://{hub_id}@{commit}: {name} cannot be downloaded from the Hugging Face Hub "
            f"({first_line(error)}): check the connection and the space on the disk, and unset "
            "HF_HUB_OFFLINE"
        ) from None
    return Path(path)
