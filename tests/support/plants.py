"""Changes that are planted into a tree, of a known size, to see whether a gate finds them.

`lisa` with ``execution: graphed`` can get two of them:

- Work of the GPU: products of two small square matrices, in the graph of the mask decoder. How many
  there are decides how long they take.
- Memory: 64 MiB more, allocated while the model is built, so that they count as weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Matrices of 2 MiB: three of them do not reach the limit of memory of a gate.
SIDE_ON_GPU = 1024
SIDE_ON_CPU = 48
WORK_FILE = "models/execution/planted.py"
WORK = f'''"""Work that was planted, to see whether a gate finds it."""

import torch


class PlantedWork:
    """Products of two square matrices, whose result nothing reads."""

    def __init__(self, device: str, products: int) -> None:
        side = {SIDE_ON_GPU} if device == "cuda" else {SIDE_ON_CPU}
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._products = products
        # No constant and no random numbers: the former take less energy, and the latter would
        # change what the model draws.
        factor = torch.linspace(-1, 1, side * side, device=device, dtype=dtype).view(side, side)
        self._factors = (factor, factor.T.contiguous())
        self._result = torch.empty_like(factor)

    def do(self) -> None:
        for _ in range(self._products):
            torch.mm(*self._factors, out=self._result)
'''


@dataclass(frozen=True)
class Edit:
    """Lines that are inserted into a file of the tree.

    Attributes:
        file: its path in the tree.
        line: a line that the file has once; the new ones come before or after it.
        lines: that are inserted, with its indentation.
        after: whether they come after it.
    """

    file: str
    line: str
    lines: Sequence[str]
    after: bool = True

    def apply(self, tree: Path) -> None:
        """Insert the lines.

        Raises:
            ValueError: the file does not have the line once.
        """
        path = tree / self.file
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        places = [number for number, line in enumerate(lines) if line.strip() == self.line]
        if len(places) != 1:
            raise ValueError(
                f"{self.file} has the line {self.line!r} {len(places)} times, and must have it "
                "once: change tests/support/plants.py as the file was changed"
            )
        (place,) = places
        indentation = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        inserted = [f"{indentation}{line}\n" for line in self.lines]
        start = place + 1 if self.after else place
        lines[start:start] = inserted
        path.write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Plant:
    """What is changed of a tree.

    Attributes:
        name: of the plant, and of the folder with its gates.
        work: GPU time of a query that is planted, as a share; 0: none.
        mib: memory that is planted, in MiB; 0: none.
    """

    name: str
    work: float = 0.0
    mib: int = 0

    def edits(self, products: int) -> list[Edit]:
        """Return the changes of files of the tree.

        Args:
            products: of matrices that take the time of the planted work.
        """
        edits = []
        if self.work:
            edits += [
                Edit(
                    "models/execution/graphed.py",
                    "self._decoder = pool.graphed(self._decode)",
                    [
                        "from .planted import PlantedWork",
                        "",
                        'device = "cuda" if pool.captures else "cpu"',
                        f"self._planted = PlantedWork(device, {products})",
                    ],
                ),
                Edit(
                    "models/execution/graphed.py",
                    "return self._model.decode(mask_embedding_MChw, seg_embedding_MC, NullProbe())",
                    ["self._planted.do()"],
                    after=False,
                ),
            ]
        if self.mib:
            size = f"({self.mib} << 20,)"
            planted = f"self._planted = torch.ones({size}, dtype=torch.uint8, device=self.device)"
            edits.append(
                Edit(
                    "models/adapters/graphed_stages.py",
                    "self._pool = GraphPool(self.device)",
                    [planted],
                )
            )
        return edits

    def apply(self, tree: Path, products: int) -> None:
        """Change the files of a tree."""
        if self.work:
            (tree / WORK_FILE).write_text(WORK, encoding="utf-8")
        for edit in self.edits(products):
            edit.apply(tree)


UNCHANGED = Plant("unchanged")
PLANTS = {
    plant.name: plant
    for plant in (
        UNCHANGED,
        Plant("work-1-percent", work=0.01),
        Plant("work-3-percent", work=0.03),
        Plant("memory-64-mib", mib=64),
    )
}
