"""Reading NumPy's archives of arrays (``*.npz``), which may be cut short or damaged."""

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..input_file import opened
from ..text import LONGEST_REASON, one_line


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a file by name.

    Raises:
        DataError: there is no such file, or it is damaged, or holds Python objects.
    """
    try:
        # No pickle: reading one could run code.
        with opened(path) as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise DataError(f"there is no {path}") from None
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many types
        reason = one_line(error, LONGEST_REASON) or type(error).__name__
        raise DataError(f"{path} is damaged ({reason})") from error
