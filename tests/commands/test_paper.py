"""`geoaware reproduce paper` from the command line: the rehearsal, a plan, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.test_reproduce import refused, run
from tests.shared_data import shared

__all__ = ["refused"]


@pytest.mark.slow
def test_the_rehearsal(tmp_path: Path) -> None:
    """All of it with tiny networks of the real classes, on SPair-71k's twelve images where they are there."""
    pytest.importorskip("diffusers")
    try:
        root = shared("SPair-mini").parent
    except pytest.skip.Exception:
        root = tmp_path
    out = tmp_path / "out"
    given = ["reproduce", "paper", "--root", root, "--out", out, "--smoke", "--device", "cpu"]
    text = run(*given)
    for name in (*(f"table{number} · " for number in (2, 3, 4, 5, 9, 12, 13)), "ablation · "):
        assert f"\n{name}" in f"\n{text}"
    assert "paper, SPair-71k: supervised, AP-10K first" in text
    content = json.loads((out / "paper.json").read_text(encoding="utf-8"))
    assert content["subjects"]["zero-shot"]["extractor"].startswith("sd15+dinov2-base[sd15(")
    assert "captioner=none" not in content["subjects"]["zero-shot"]["extractor"]
    rates = (out / "rates.json").read_bytes()
    before = (out / "paper.md").read_bytes()
    assert run(*given) == text
    # Nothing was measured, so nothing was done again.
    assert (out / "rates.json").read_bytes() == rates
    assert (out / "paper.md").read_bytes() == before
    planned = run(*given, "--dry-run")
    assert planned.count(" done ") == planned[: planned.index("all that is left")].count("\n") - 4
    # Images that may have changed are looked at again, and their features are there.
    images = [each for each in (out / "data").rglob("*.jpg") if not each.is_symlink()]
    assert images
    for each in images:
        each.touch()
    assert run(*given) == text
    assert (out / "rates.json").read_bytes() == rates


def test_a_plan_of_what_is_not_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = run("reproduce", "paper", "--root", tmp_path, "--out", out, "--dry-run")
    assert "0 of 260,950 steps" in text
    assert "features of ap-10k" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("paper", [], "no implicit captioner is given"),
        ("paper", ["--split", "val"], "leave this out (--split)"),
        ("paper", ["--extractor", "dinov2-base"], "`all` takes others (--extractor)"),
        ("paper", ["--config", "ap10k"], "leave this out (--config)"),
        ("paper", ["--restart"], "remove from its folder what is to be made anew (--restart)"),
        ("paper", ["--dtype", "bf16", "--set", "sd15.captioner=null"], "leave this out (--dtype)"),
        ("all", ["--dry-run"], "this goes with `paper` only (--dry-run)"),
        ("table2", ["--smoke"], "this goes with `paper` only (--smoke)"),
    ],
)
def test_what_is_refused(tmp_path: Path, refused, name: str, more: list[str], message: str) -> None:
    said = refused("reproduce", name, "--root", tmp_path, "--out", tmp_path / "out", *more)
    assert message in " ".join(said.split())
    assert len(said.strip().splitlines()) <= 2
    assert not (tmp_path / "out").exists()
