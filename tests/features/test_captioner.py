"""The implicit captioner: conversion from a checkpoint, and its values against the formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from geoaware.commands.info import info
from geoaware.features.captioner import (
    CLIP_MEAN,
    CLIP_STD,
    KEYS,
    ImplicitCaptioner,
    clip_pixels,
    convert_captioner,
    load_captioner,
)
from geoaware.runs.errors import InputError
from geoaware.studies.tiny_networks import EMBEDDING, TEXT, odise_state
from tests.reference.captioner import context_of, time_of


def checkpoint(folder: Path, content: object = None) -> Path:
    path = folder / "odise.pth"
    torch.save({"model": odise_state(), "iteration": 9} if content is None else content, path)
    return path


def test_conversion_keeps_the_tensors_and_nothing_else(tmp_path: Path) -> None:
    written = convert_captioner(checkpoint(tmp_path))
    assert written == tmp_path / "odise.captioner.safetensors"
    tensors, state = load_file(written), odise_state()
    assert sorted(tensors) == sorted(KEYS)
    for key, tensor in tensors.items():
        assert torch.equal(tensor, state["backbone.feature_extractor." + key])
    first = written.read_bytes()
    assert convert_captioner(tmp_path / "odise.pth", tmp_path / "again.safetensors").read_bytes() == first


@pytest.mark.parametrize(
    "wrap",
    [lambda state: state, lambda state: {"state_dict": state}, lambda state: {"model": {"model": state}}],
)
def test_the_tensors_are_found_however_the_checkpoint_is_wrapped(tmp_path: Path, wrap) -> None:
    assert convert_captioner(checkpoint(tmp_path, wrap(odise_state()))).is_file()


def test_values_equal_the_formula(tmp_path: Path) -> None:
    captioner = load_captioner(convert_captioner(checkpoint(tmp_path)))
    assert captioner.text.weight.shape[1] == EMBEDDING
    state, embeddings = odise_state(), torch.randn(2, EMBEDDING)
    text, time = torch.randn(77, TEXT), torch.randn(128)
    context, time_offset = captioner(embeddings)
    for row, embedding in enumerate(embeddings):
        expected = context_of(state, text, embedding)
        torch.testing.assert_close(text + context[row], expected, atol=1e-5, rtol=1e-5)
        expected = time_of(state, time, embedding)
        torch.testing.assert_close(time + time_offset[row], expected, atol=1e-5, rtol=1e-5)


def test_a_single_factor_counts_for_all() -> None:
    state = {key.removeprefix("backbone.feature_extractor."): value for key, value in odise_state().items()}
    state["alpha_cond"] = torch.tensor([0.5])
    embedding = torch.randn(1, EMBEDDING)
    found = ImplicitCaptioner(state)(embedding)[0]
    state["alpha_cond"] = torch.full((1, 77, TEXT), 0.5)
    torch.testing.assert_close(found, ImplicitCaptioner(state)(embedding)[0])


def test_clip_sees_images_of_its_size_with_its_mean() -> None:
    constant = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1).expand(1, 3, 512, 512)
    torch.testing.assert_close(clip_pixels(constant, 336), torch.zeros(1, 3, 336, 336), atol=1e-5, rtol=0)
    pixels = torch.rand(1, 3, 48, 48)
    expected = F.interpolate(pixels, size=(36, 36), mode="bicubic", align_corners=False)
    expected = (expected - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    torch.testing.assert_close(clip_pixels(pixels, 36), expected)


class Harmful:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = checkpoint(tmp_path, {"model": odise_state(), "more": Harmful(trap)})
    with pytest.raises(InputError, match=r"odise\.pth: damaged, or holds more than tensors, and was not"):
        convert_captioner(path)
    assert not trap.exists()
    assert sorted(tmp_path.iterdir()) == [path]


def renamed(state: dict) -> dict:
    return {key.replace("alpha_cond_time_embed", "beta"): value for key, value in state.items()}


def doubled(state: dict) -> dict:
    return {**state, "ema.alpha_cond": torch.ones(1)}


def misshapen(state: dict) -> dict:
    return {**state, "backbone.feature_extractor.alpha_cond": torch.ones(5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "name ends in alpha_cond_time_embed; this one holds none"),
        (doubled, r"ends in alpha_cond; this one holds several, backbone.*, ema\.alpha_cond"),
        (misshapen, r"alpha_cond of \(5,\) does not fit"),
        (lambda state: [1, 2], "holds a list, not the tensors"),
    ],
)
def test_what_is_no_captioner_is_refused_and_nothing_is_written(tmp_path: Path, change, message: str) -> None:
    path = checkpoint(tmp_path, change(odise_state()))
    with pytest.raises(InputError, match=message) as caught:
        convert_captioner(path)
    assert str(caught.value).startswith(str(path))
    assert sorted(tmp_path.iterdir()) == [path]


def test_files_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; give an ODISE checkpoint"):
        convert_captioner(tmp_path / "none.pth")
    with pytest.raises(
        InputError, match=r"no such file; make it from an ODISE checkpoint: convert_captioner"
    ):
        load_captioner(tmp_path / "none.safetensors")
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.pth: damaged, or holds more than tensors, and was not"):
        convert_captioner(tmp_path / "text.pth")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_captioner(checkpoint(tmp_path))
    save_file({"alpha_cond": torch.ones(1)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"part\.safetensors: no implicit captioner: .*clip_project"):
        load_captioner(tmp_path / "part.safetensors")


def test_the_command(tmp_path: Path) -> None:
    app, out = typer.Typer(), tmp_path / "captioner.safetensors"
    app.command()(info)
    done = CliRunner().invoke(app, ["--convert-captioner", str(checkpoint(tmp_path)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"--set captioner={out}" in done.output
    assert sorted(load_file(out)) == sorted(KEYS)
    refused = CliRunner().invoke(app, ["--out", str(out)])
    assert isinstance(refused.exception, InputError)
    assert "--out goes with --convert-captioner FILE" in str(refused.exception)


def test_info_says_which_extractors_need_weights() -> None:
    app = typer.Typer()
    app.command()(info)
    told = json.loads(CliRunner().invoke(app, ["--json"]).output)["extractors"]
    assert told["efficientnet-lite0"]["here"] == "ready"
    assert told["sd15"]["here"] == told["dinov2-base"]["here"] == "needs its weights"
