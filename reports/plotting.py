"""What reports use of matplotlib, imported without the user's settings.

When matplotlib is imported, it reads a file ``matplotlibrc``: that of the current folder, of an
environment variable, or of the user. Such a file is for other figures. If it is no text, the import
fails; if it is wrong, warnings are printed. So this is the only module that imports matplotlib.
"""

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path

BACKEND = "MPLBACKEND"


@contextmanager
def _default_settings() -> Iterator[None]:
    """Let matplotlib be imported inside the block with its own defaults.

    The current folder is the first place where it looks for settings, and no variable changes that.
    So for the moment of the import it is the folder with the defaults. A notebook names a backend
    that is installed in its kernel alone.
    """
    backend = os.environ.pop(BACKEND, None)
    try:
        with chdir(_folder_of_defaults()):
            yield
    finally:
        if backend is not None:
            os.environ[BACKEND] = backend


def _folder_of_defaults() -> Path:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed", name="matplotlib")
    return Path(spec.origin).with_name("mpl-data")


with _default_settings():
    from matplotlib import font_manager, rc_context, rcParamsDefault
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Annotation
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
    from matplotlib.transforms import Bbox

__all__ = [
    "Annotation",
    "Artist",
    "Axes",
    "Bbox",
    "Figure",
    "FigureCanvasAgg",
    "FixedLocator",
    "Line2D",
    "MaxNLocator",
    "NullLocator",
    "Patch",
    "font_manager",
    "rcParamsDefault",
    "rc_context",
    "to_rgb",
]
