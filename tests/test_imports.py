"""Imports point up the list of the layout, never down; nothing heavy happens at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "geoaware"

# A part may import the layers before its own and nothing else of the project.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_version", "_moved"}),
    frozenset({"runs"}),
    frozenset({"method"}),
    frozenset({"data", "drawing"}),
    frozenset({"features"}),
    frozenset({"store"}),
    frozenset({"presets"}),
    frozenset({"result"}),
    frozenset({"field"}),
    frozenset({"matcher"}),
    frozenset({"evaluation"}),
    frozenset({"report"}),
    frozenset({"training"}),
    frozenset({"apps"}),
    frozenset({"studies"}),
    frozenset({"commands"}),
    frozenset({"cli"}),
    frozenset({"__init__", "__main__"}),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# drawing draws values and knows nothing of how they came about.
ONLY = {"drawing": {"method", "runs", "drawing"}}


def _part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Parts of the project that a file imports, anywhere in it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "geoaware" and len(pieces) > 1:
                parts.add(pieces[1])
    return parts


def _wrong_arrows(part: str, imported: set[str]) -> set[str]:
    allowed = {each for each, level in LEVEL.items() if level < LEVEL[part]} | {part}
    return imported - (allowed & ONLY.get(part, allowed))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_up(path: Path) -> None:
    part = _part(path)
    assert part in LEVEL, f"{part} has no place in the layout: add it to LAYERS"
    if part != "__init__":
        assert not _wrong_arrows(part, _imported(path))


def test_a_wrong_arrow_is_found() -> None:
    assert _wrong_arrows("runs", {"method"}) == {"method"}
    assert _wrong_arrows("drawing", {"method", "data"}) == {"data"}
    assert _wrong_arrows("method", {"features"}) == {"features"}


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}


def _modules(nodes: Iterable[ast.AST]) -> set[str]:
    """Files of the project that import statements among the nodes load."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & FILES.keys() or {node.module or ""} & FILES.keys()
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & FILES.keys()
    return found


def test_the_longest_chain_of_imports_is_short() -> None:
    # Imports inside functions load when they are needed, and so do not count.
    loads = {name: _modules(tree.body) - {name} for name, tree in FILES.items()}

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(each) for each in loads[name]), key=len, default=()))

    longest = max((chain(name) for name in FILES), key=len)
    assert len(longest) <= 15, " -> ".join(longest)


def test_no_files_import_each_other_in_a_circle() -> None:
    # Here every import counts, those inside functions and for type checkers too.
    left = {name: _modules(ast.walk(tree)) - {name} for name, tree in FILES.items()}
    while free := [name for name, loaded in left.items() if not loaded & left.keys()]:
        for name in free:
            del left[name]
    assert not left, sorted(left)


@pytest.mark.parametrize("module", ["geoaware", "geoaware.cli"])
def test_nothing_heavy_at_import(module: str) -> None:
    heavy = ("torch", "transformers", "matplotlib", "scipy", "PIL")
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
