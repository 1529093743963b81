"""Models on the Hugging Face Hub: their files are listed first, and downloaded when asked for.

Files go to the Hub's own cache. `HF_HUB_OFFLINE`, `HF_HOME` and the token of `hf auth login` are
honoured, since huggingface_hub does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import DataError, first_line

# A path of Python's has dropped the second slash of hf://.
ID = re.compile(r"(hf:/{1,2})?(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub, at one commit.

    Attributes:
        hub_id: ``owner/name``.
        commit: the revision.
        sizes: bytes of each file, by its path.
    """

    hub_id: str
    commit: str
    sizes: Mapping[str, int]

    def fetch(self, names: Iterable[str]) -> Path:
        """Return the folder with these files, after downloading those that are not in the cache.

        Raises:
            DataError: there are none, or one cannot be downloaded.
        """
        import huggingface_hub

        folder: Path | None = None
        for name in names:
            try:
                file = huggingface_hub.hf_hub_download(self.hub_id, name, revision=self.commit)
            except Exception as error:  # the client and its HTTP library raise many types
                raise DataError(
                    f"{name} of {self.hub_id} cannot be downloaded from the Hugging Face Hub "
                    f"({first_line(error)}): check the connection and the space on the disk, "
                    "and run the command again; what is here already is not downloaded again"
                ) from None
            folder = Path(file).parents[name.count("/")]
        if folder is None:
            listed = ", ".join(sorted(self.sizes)[:5]) or "no file"
            raise DataError(f"{self.hub_id} holds no config.json and no weights (it has {listed})")
        return folder

    def is_cached(self, name: str) -> bool:
        """Return whether a file is in the cache."""
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(self.hub_id, name, revision=self.commit)
        return isinstance(cached, str)


def found(place: Path) -> HubModel | None:
    """Return the model that a path names, which is no file or folder; None if it is no id.

    Args:
        place: ``owner/name`` or ``owner/name@revision``, with ``hf://`` in front or not.

    Raises:
        DataError: the Hub has no such model or cannot be asked, and the cache has none either.
    """
    match = ID.fullmatch(place.as_posix())
    if match is None:
        return None
    import huggingface_hub

    hub_id, revision = match["name"], match["revision"]
    try:
        info = huggingface_hub.model_info(hub_id, revision=revision, files_metadata=True)
    except Exception as error:
        return _cached(hub_id, revision, first_line(error))
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    return HubModel(hub_id, str(info.sha), sizes)


def _cached(hub_id: str, revision: str | None, reason: str) -> HubModel:
    """Return a model as far as the cache has it.

    Raises:
        DataError: it has none.
    """
    import huggingface_hub

    try:
        # No file is asked for: a snapshot that lacks some will do.
        snapshot = huggingface_hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=[], local_files_only=True
        )
    except Exception:
        raise DataError(
            f"{hub_id} is no file or folder here and cannot be found on the Hugging Face Hub "
            f"({reason}): check the name and the connection, run `hf auth login` for a model that "
            "asks for consent, or give a folder"
        ) from None
    folder = Path(snapshot)
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return HubModel(hub_id, folder.name, sizes)
