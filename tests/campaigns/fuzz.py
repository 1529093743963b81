"""A campaign: whatever is in a file, its reader returns, or says in one line what is wrong.

    python tests/campaigns/fuzz.py --inputs 100000 --seed 1

It damages a file of each kind again and again and has it read. A reader may raise a
`LisabenchError` with a short message in one line, and nothing else; and it must end in time.
"""

import argparse
import signal
import sys
import tempfile
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from mutations import mutated
from readers import READERS, Reader

from lisabench.harness.errors import LONGEST_MESSAGE, LisabenchError
from lisabench.harness.text import visible

TIME_LIMIT_S = 60


class TookTooLongError(Exception):
    """A reader did not end in time."""


@dataclass(frozen=True)
class Finding:
    """An input that a reader did not cope with.

    Attributes:
        reader: its name.
        file: which file was damaged.
        what: the exception and where it was raised.
        content: of the damaged file.
    """

    reader: str
    file: str
    what: str
    content: bytes


def fuzz(readers: list[Reader], inputs: int, seed: int) -> Iterator[Finding]:
    """Yield what was found in so many inputs, which the seed determines."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {}
        for reader in readers:
            folders[reader.name] = reader.prepare(Path(temporary) / reader.name)
        for reader in islice(cycle(_turns(readers)), inputs):
            folder = folders[reader.name]
            path = random.choice(sorted(folder.glob(random.choice(reader.files))))
            sound = path.read_bytes()
            damaged = mutated(sound, path.suffix, random)
            path.write_bytes(damaged)
            what = failure(lambda read=reader.read, folder=folder: read(folder))
            path.write_bytes(sound)
            if what is not None:
                yield Finding(reader.name, path.name, what, damaged)


def _turns(readers: list[Reader]) -> list[Reader]:
    """Return whose turn it is, in order: slow readers have one of ten."""
    turns = list(readers)
    for _ in range(9):
        turns += [reader for reader in readers if not reader.is_slow]
    return turns


def failure(read: Callable[[], object]) -> str | None:
    """Return why a reader did not cope, in one line; None if it did."""
    try:
        with _time_limit():
            read()
    except LisabenchError as error:
        return _fault_of_message(str(error))
    except BaseException as error:
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame)]
        place = ours[-1] if ours else innermost
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"[
            :300
        ]
    return None


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return "lisabench" in frame.filename and "campaigns" not in frame.filename


def _fault_of_message(message: str) -> str | None:
    if len(message) > LONGEST_MESSAGE:
        return f"a message of {len(message)} characters: {message[:80]!r}"
    # Not `isprintable`: a character that this Python's Unicode does not know yet is text, too.
    categories = {unicodedata.category(character) for character in message}
    if categories & {"Cc", "Cs", "Zl", "Zp"} or visible(message) != message:
        return f"a message with characters that act: {message[:200]!r}"
    return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TookTooLongError(f"more than {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(TIME_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Run the campaign and print each kind of finding with its number and one example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="one reader alone")
    parser.add_argument("--keep", type=Path, help="a folder for one example of each kind")
    given = parser.parse_args()
    readers = [reader for reader in READERS if given.reader in (None, reader.name)]
    kinds: Counter[tuple[str, str]] = Counter()
    for finding in fuzz(readers, given.inputs, given.seed):
        kind = finding.reader, finding.what.partition(": ")[0]
        kinds[kind] += 1
        if kinds[kind] == 1:
            print(f"{finding.reader} ({finding.file}): {finding.what}", flush=True)
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{len(kinds)}-{finding.file}").write_bytes(finding.content)
    print(f"{given.inputs} inputs, {kinds.total()} findings of {len(kinds)} kinds")
    turns = Counter(reader.name for reader in islice(cycle(_turns(readers)), given.inputs))
    print(", ".join(f"{name}: {count}" for name, count in turns.items()))
    for (reader, what), count in kinds.most_common():
        print(f"{count:6} {reader}: {what}")
    sys.exit(bool(kinds))


if __name__ == "__main__":
    main()
