"""The library says what is wrong in Python's terms; only the command line names flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "geoaware"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
THEIRS = ("commands/", "cli.py")
"""Where flags are known."""


def _flags_in_errors(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and flag, for each flag in what is raised or given to an error's constructor."""
    for node in ast.walk(tree):
        is_error = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")
        if isinstance(node, ast.Raise) or is_error:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from ((part.lineno, flag) for flag in FLAG.findall(part.value))


FILES = [
    path
    for path in sorted(SOURCE.rglob("*.py"))
    if not path.relative_to(SOURCE).as_posix().startswith(THEIRS)
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_error_of_the_library_names_a_flag(path: Path) -> None:
    assert not set(_flags_in_errors(ast.parse(path.read_text(encoding="utf-8"))))


def test_a_flag_in_an_error_is_found() -> None:
    code = 'x = "--fine"\nraise InputError(f"{x}: give " "--restart")\ny = DataError("no\\n--pairs=3")'
    assert set(_flags_in_errors(ast.parse(code))) == {(2, "--restart"), (3, "--pairs")}
    assert not set(_flags_in_errors(ast.parse('raise ValueError("a -- b, e-mail--x, ---")')))
