"""The import graph of lisabench, read from the syntax trees: lazy imports count too."""

import ast
from pathlib import Path

from places import ROOT

from lisabench.benchmarks.gate.versions import ROOMS

PACKAGE = "lisabench"

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Return the file of each module by its dotted name in the package: ``models.registry``."""
    files = {"cli": ROOT / "cli.py"}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if "micro" not in relative.parts:
                files[".".join(relative.with_suffix("").parts)] = path
    return files


def import_graph() -> Graph:
    """Return the modules that each module imports."""
    files = modules()
    graph = {}
    for name, path in files.items():
        graph[name] = imports_of(path.read_text(encoding="utf-8"), name, set(files)) - {name}
    return graph


def imports_of(source: str, module: str, known: set[str]) -> set[str]:
    """Return the known modules that a module's source imports, absolutely or relatively."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(f"{PACKAGE}.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _imported_base(node, module)
            found.add(base)
            for alias in node.names:
                found.add(f"{base}.{alias.name}".removeprefix("."))
    return found & known


def _imported_base(node: ast.ImportFrom, module: str) -> str:
    name = node.module or ""
    if node.level == 0:
        return (
            name.removeprefix(PACKAGE).removeprefix(".")
            if name.split(".")[0] == PACKAGE
            else f"outside.{name}"
        )
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, name]).strip(".")


def circles(graph: Graph) -> list[list[str]]:
    """Return every set of modules that import each other, directly or through others."""
    reachable = {module: _reachable(graph, module) for module in graph}
    found = []
    for module in graph:
        if module in reachable[module]:
            circle = sorted(other for other in reachable[module] if module in reachable[other])
            if circle not in found:
                found.append(circle)
    return found


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting.extend(graph[module])
    return seen
