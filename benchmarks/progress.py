"""The progress of a long command, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Is called with the number of steps done, the number of all steps, and what is done now.
Progress = Callable[[int, int, str], None]


@contextmanager
def shown() -> Iterator[Progress]:
    """Show a progress bar, and yield the function that advances it.

    The bar is drawn only when that function is called. It has no thread of its own, which would run
    while a model is timed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None)

        def advance(done: int, total: int, description: str) -> None:
            bar.update(task, completed=done, total=total, description=description, refresh=True)

        yield advance
