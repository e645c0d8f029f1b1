"""Groups of options as the command line sees them, and what the commands make of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from PIL import Image
from typer import Argument, Option
from typer.testing import CliRunner

from geoaware import cli
from geoaware.commands import evaluate, reproduce, transfer
from geoaware.commands.options import (
    DataOptions,
    EngineOptions,
    FeatureOptions,
    LoaderOptions,
    PairOptions,
    PoseOptions,
    RunOptions,
    Without,
    cut,
    expand,
    find_store,
    load_data,
    load_matcher,
    parse_settings,
)
from geoaware.features import EXTRACTORS, Entry
from geoaware.runs import cluster
from geoaware.runs.errors import InputError
from geoaware.runs.work import Local
from geoaware.store.extraction import extract as extract_features
from geoaware.store.extraction import survey
from geoaware.store.feature_store import FeatureStore
from tests.commands.test_reproduce import faces
from tests.store.toy_extraction import Toy


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Option(help="How large.")] = 3


@dataclass(frozen=True, kw_only=True)
class Outer:
    place: Annotated[Path, Argument(metavar="PLACE")]
    inner: Inner
    named: Annotated[str | None, Option("--name")] = None
    fast: Annotated[bool, Option("--fast/--slow")] = True


def ask(command: Any, *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), standalone_mode=False)


def test_a_group_becomes_its_fields_in_order_and_comes_back_filled() -> None:
    @expand
    def command(
        before: Annotated[int, Option()] = 1, *, group: Outer, after: Annotated[float, Option()] = 0.5
    ) -> tuple[int, Outer, float]:
        return before, group, after

    told = ask(command, "there", "--name", "x", "--slow", "--size", "7", "--after", "2")
    assert told.return_value == (1, Outer(place=Path("there"), inner=Inner(7), named="x", fast=False), 2.0)
    assert ask(command, "there").return_value == (1, Outer(place=Path("there"), inner=Inner()), 0.5)
    flags = [each.name for each in typer.main.get_params_from_function(command).values()]
    assert flags == ["before", "place", "size", "named", "fast", "after"]
    assert "Missing parameter: place" in str(ask(command).exception)


def test_a_field_that_is_left_out_is_no_option_and_keeps_its_default() -> None:
    @expand
    def command(group: Annotated[Outer, Without("named", "fast")]) -> Outer:
        return group

    assert ask(command, "there", "--size", "2").return_value.inner == Inner(2)
    assert ask(command, "there").return_value.fast is True
    assert "No such option" in str(ask(command, "there", "--slow").exception)


def test_two_options_of_one_name_are_an_error_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="duplicate parameter name: 'size'"):

        @expand
        def command(one: Inner, other: Inner) -> None: ...


def test_what_a_command_does_not_offer() -> None:
    def names(command: Any) -> set[str]:
        return set(typer.main.get_params_from_function(command))

    assert "cache_mb" not in names(transfer.transfer)
    assert not {"blend", "masks", "pose"} & names(reproduce.reproduce)
    assert names(evaluate.evaluate) >= names(evaluate.predict)


def test_a_wrong_item_is_told_with_its_own_option() -> None:
    assert parse_settings(["a=[1, 2]", "b=x: [", "c="]) == {"a": (1, 2), "b": "x: [", "c": None}
    with pytest.raises(InputError, match="--set 'canvas' is not of the form key=value"):
        parse_settings(["canvas"])
    with pytest.raises(InputError, match="--option 'pairs' is not of the form key=value"):
        load_data(DataOptions("coco", Path(), "val", LoaderOptions(option=["pairs"])), PairOptions())


@pytest.mark.parametrize("count", ["few", "0", "-3"])
def test_a_number_of_pairs(count: str) -> None:
    assert (PairOptions().count, PairOptions("all").count, PairOptions("12").count) == (None, None, 12)
    with pytest.raises(InputError, match=f"--pairs '{count}': give a number or all"):
        _ = PairOptions(count).count


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    return Toy()


def store_in(cache: Path, extractor: Toy, images: Path, stored: str) -> FeatureStore:
    store = FeatureStore.of(cache, extractor, stored)  # type: ignore[arg-type]
    extract_features(survey(sorted(images.glob("*.png")), ("identity",), store), extractor, store)
    return store


def test_the_most_exact_set_of_a_cache_is_read(toy: Toy, tmp_path: Path) -> None:
    images = faces(tmp_path / "cats") / "images"
    cache = tmp_path / "cache"
    assert find_store(cache, toy).key.stored == "fp16"
    for stored in ("int8", "fp16", "fp32"):
        store_in(cache, toy, images, stored)
        assert find_store(cache, toy).key.stored == stored
    # A set of other weights is not taken for one of these, and neither is a folder without features.
    other = Toy(weight=2.0)
    assert find_store(cache, other).key.stored == "fp16"
    FeatureStore.of(cache, other, "fp32").prepare()
    assert find_store(cache, other).key.stored == "fp16"


@pytest.mark.parametrize("stored", ["int8", "fp32"])
def test_stored_features_are_not_extracted_again(
    toy: Toy, tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = faces(tmp_path / "cats"), tmp_path / "cache"
    store = store_in(cache, toy, root / "images", stored)
    run = RunOptions(cache=cache, device="cpu")
    matcher = load_matcher(FeatureOptions("toy"), run, PoseOptions("off"))
    assert matcher.extractor.stored == stored

    def never(*_: Any) -> None:
        raise AssertionError("extracted again")

    monkeypatch.setattr(Toy, "levels", never)
    asked = [
        "--dataset",
        "coco",
        "--root",
        str(root),
        "--split",
        "val",
        "--extractor",
        "toy",
        "--pose",
        "off",
    ]
    out = tmp_path / "p.jsonl"
    done = ask(evaluate.predict, *asked, "--cache", str(cache), "--device", "cpu", "--out", str(out))
    assert done.exception is None
    header = json.loads(out.read_text(encoding="utf-8").splitlines()[0])
    assert header["settings"]["stored"] == stored
    assert [each.name for each in cache.iterdir() if each.is_dir()] == [store.folder.name]


def test_predictions_of_coco_sets_are_named_after_their_folders(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "pets"):
        faces(tmp_path / name)
        asked = ["--dataset", "coco", "--root", name, "--split", "val", "--extractor", "toy"]
        assert ask(evaluate.predict, *asked, "--device", "cpu").exception is None
    made = sorted(each.name for each in tmp_path.glob("*.jsonl"))
    assert made == ["cats-val-toy-paper.jsonl", "pets-val-toy-paper.jsonl"]


def test_debug_is_the_option_and_not_any_word_of_that_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["match", "absent.png", "b.png", "--point", "1,2"]
    monkeypatch.setattr(sys, "argv", ["geoaware", "--debug", *asked])
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        cli.main()
    monkeypatch.setattr(sys, "argv", ["geoaware", *asked, "--extractor", "--debug"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: absent.png: no such file\n"


@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_reproduce_passes_restart_on(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    asked: list[bool] = []

    def conduct(study: Any, *_: Any, **__: Any) -> None:
        asked.append(study.restart)
        raise InputError("enough")

    monkeypatch.setattr("geoaware.studies.conduct.conduct", conduct)
    root, out = str(faces(tmp_path / "cats")), str(tmp_path / "out")
    data = ["--dataset", "coco", "--root", root, "--split", "val", "--out", out]
    done = ask(reproduce.reproduce, "table1", *data, "--extractor", "toy", "--device", "cpu", *more)
    assert str(done.exception) == "enough"
    assert asked == [bool(more)]


@pytest.mark.parametrize(
    ("asked", "parameter", "flag"),
    [
        (["match", "a", "b", "--point", "1,2"], "points", " (--points)"),
        (["match", "a", "b", "--point", "1,2"], "json_file", " (--json)"),
        # What the command does not offer is not named, even if another command does; nor is an argument.
        (["match", "a", "b", "--point", "1,2"], "restart", ""),
        (["match", "a", "b", "--point", "1,2"], "a", ""),
        (["data", "check", "pairs", "a"], "images", " (--images)"),
    ],
)
def test_what_mends_an_error_is_named_as_the_command_spells_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    parameter: str,
    flag: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise InputError("it is wrong", parameter)

    monkeypatch.setattr("geoaware.commands.match.PointOptions.read", fail)
    monkeypatch.setattr("geoaware.data.check.check", fail)
    monkeypatch.setattr(sys, "argv", ["geoaware", *asked])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"error: it is wrong{flag}\n"


@pytest.mark.parametrize("asked", [["--point", "{}"], ["--point", "1,2", "--set", "{}"]])
@pytest.mark.parametrize("long", ["a b" * 30_000, "'\"a" * 30_000])
def test_an_argument_that_a_message_repeats_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[str], long: str
) -> None:
    image = str(Path(__file__))
    words = [each.format(long) for each in asked]
    monkeypatch.setattr(sys, "argv", ["geoaware", "match", image, image, *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert 80 < len(capsys.readouterr().err) < 300


@pytest.mark.parametrize(
    ("given", "flag"), [("device=cuda", " (--device)"), ("name=x", " (--extractor)"), ("settings=3", "")]
)
def test_an_argument_of_loading_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: str,
    flag: str,
) -> None:
    image = str(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(image)
    monkeypatch.setattr(sys, "argv", ["geoaware", "match", image, image, "--point", "1,2", "--set", given])
    with pytest.raises(SystemExit):
        cli.main()
    key = given.partition("=")[0]
    expected = f"error: {key} is no setting of an extractor; give it by an option of its own{flag}\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(InputError, match=f"{key} is no setting"):
        load_matcher(FeatureOptions(), RunOptions([given]), PoseOptions())


@pytest.mark.parametrize(
    "asked",
    [
        ["score", "absent.jsonl", "--csv"],
        ["evaluate", "--dataset", "coco", "--root", "absent", "--split", "val", "--markdown"],
        ["transfer", "absent.json", "photos", "--out", "out.json", "--review"],
        ["pose", "photos", "--templates", "absent", "--out"],
        ["gallery", "absent.jsonl", "--root", "absent", "--out"],
        ["ablation", "absent.yaml", "--out", "runs", "--markdown"],
    ],
)
def test_every_command_finds_out_first_what_it_cannot_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["geoaware", *asked, str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"{tmp_path}: is a folder; give the name of a file to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "lite-frozen", "--out", "{}"],
        ["tune", "lite", "--out", "{}"],
        ["reproduce", "all", "--root", "{}", "--out", "x"],
        ["examples", "{}"],
        ["data", "build-ap10k", "{}"],
    ],
)
def test_commands_that_work_on_this_machine_refuse_urls(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["geoaware", *(each.format("s3://zoo/x") for each in words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: s3://zoo/x: this command works on files of this machine; give a path of it\n"


def test_which_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(cluster, "Ray", lambda *arguments: given.append(arguments))
    EngineOptions(engine="ray").load(5, "geoaware.matcher")
    EngineOptions(4, "ray", "head:6379", 0.5).load(5, "geoaware.matcher")
    assert given == [("auto", None, None), ("head:6379", 4, 0.5)]
    local = EngineOptions(3).load(1, "geoaware.matcher")
    assert isinstance(local, Local)
    assert local.workers == 3
    for options, message, parameter in (
        (EngineOptions(engine="spark"), "unknown engine 'spark'; choose local or ray", "engine"),
        (EngineOptions(address="head:6379"), "only the engine ray takes this", "address"),
        (EngineOptions(gpus_per_worker=0.0), "only the engine ray takes this", "gpus_per_worker"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            options.load(5, "geoaware.matcher")
        assert caught.value.parameter == parameter


@pytest.mark.parametrize("name", ["evaluate", "extract", "pose", "predict", "transfer"])
def test_every_command_of_long_work_has_the_engines(name: str) -> None:
    command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    flags = {flag for each in command.params for flag in each.opts}
    assert flags >= {"--workers", "--engine", "--address", "--gpus-per-worker"}


def test_a_message_has_a_second_line_for_its_remedy_only() -> None:
    shown = cut("a\nb\r\t \x1b[31m \u202eé 日本\nremedy: this")
    assert shown == "a\\nb\\r\\t \\x1b[31m \\u202eé 日本\nremedy: this"
