from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from geoaware.commands import evaluate as commands
from geoaware.data import load
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.features import load_extractor
from geoaware.features.refined import load_post_processor
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from tests.data.test_spair import made_up
from tests.evaluation.records import make_records
from tests.evaluation.test_score import write
from tests.features.test_refined import LITE_CHANNELS, random_network
from tests.shared_data import shared
from tests.toys import save_face

app = typer.Typer()
for command in (commands.predict, commands.score, commands.evaluate):
    app.command()(command)


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_score_prints_tables_and_writes_files(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(40))
    files = {"--csv": tmp_path / "a.csv", "--markdown": tmp_path / "a.md"}
    text = run("score", path, "--by", "category", *[each for pair in files.items() for each in pair])
    assert "per image *" in text
    assert "PCK by category" in text
    assert all(each.stat().st_size > 500 for each in files.values())
    assert "PCK by keypoint" in run("score", path, "--by", "keypoint")
    assert "Sensitivity to azimuth" in run("score", path, "--by", "azimuth")


def test_score_as_json_is_json_alone(tmp_path):
    path = write(tmp_path / "p.jsonl", make_records(40))
    content = json.loads(run("score", path, "--json", "--alpha", 0.1, "--alpha", 0.02, "--draws", 10))
    assert content["alphas"] == [0.02, 0.1]


def test_plot_against_window(tmp_path):
    settings = [{"matching": {"window": window}} for window in (1, 5)]
    paths = [
        write(tmp_path / f"{n}.jsonl", make_records(20), settings=each) for n, each in enumerate(settings)
    ]
    run("score", paths[0], "--window-run", paths[1], "--plots", tmp_path / "plots", "--draws", 0)
    assert (tmp_path / "plots" / "pck_against_window.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "colour"], "--by 'colour': choose category, azimuth or keypoint"),
        (["--by", "azimuth", "--csv", "made.csv"], "hold no azimuth difference"),
        (["--window-run", "x"], "give --plots DIR too"),
        (["--protocol", "dift"], "predicted under protocol paper, not dift"),
    ],
)
def test_score_refuses(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "p.jsonl", make_records(10, azimuth=False))
    with pytest.raises(InputError, match=message):
        run("score", path, *options)
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.fixture
def two_faces(tmp_path):
    """The options that choose a data set of one pair."""
    eyes = [[56, 80], [104, 80]]
    save_face(tmp_path / "a.png")
    save_face(tmp_path / "b.png", colour="gray")
    pair = {"source": "a.png", "target": "b.png", "source_points": eyes, "target_points": eyes}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    return ["--dataset", "pairs", "--root", tmp_path, "--split", "mine", "--device", "cpu"]


@pytest.fixture
def for_lite() -> PostProcessor:
    identity = load_extractor("efficientnet-lite0", device="cpu").identity
    return random_network(12, LITE_CHANNELS, extractor=identity, matching={"window": 7, "blend": 0.25})


def header_of(path):
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0])


def test_predict_with_a_post_processor(two_faces, for_lite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path / "shipped")
    for_lite.save_pretrained(tmp_path / "shipped" / "lite-frozen")
    names = ("lite-frozen", "efficientnet-lite0")
    for name in names:
        assert "PCK by category" in run("evaluate", *two_faces, "--extractor", name)
    with_it, without = (header_of(tmp_path / f"pairs-mine-{name}-pf-pascal.jsonl") for name in names)
    assert with_it["hashes"]["post_processor"] == for_lite.weights_hash()
    assert with_it["settings"]["blend"] == 0.25
    assert with_it["settings"]["matching"]["window"] == 7
    assert with_it["settings"]["pose"] == "off"
    assert "post_processor" not in without["hashes"]
    assert without["settings"]["matching"]["window"] == 9
    # The preset without its post-processor is the extractor, to the last byte.
    run(
        "predict", *two_faces, "--extractor", "lite-frozen", "--post-processor", "none", "--out", "none.jsonl"
    )
    run("predict", *two_faces, "--extractor", "lite-frozen", "--blend", 0, "--out", "zero.jsonl")
    plain = (tmp_path / "pairs-mine-efficientnet-lite0-pf-pascal.jsonl").read_bytes()
    assert (tmp_path / "none.jsonl").read_bytes() == (tmp_path / "zero.jsonl").read_bytes() == plain
    torch.save(for_lite.state_dict(), tmp_path / "best.PTH")
    chosen = [
        *two_faces,
        "--extractor",
        "efficientnet-lite0",
        "--post-processor",
        "best.PTH",
        "--pose",
        "flip",
    ]
    run("predict", *chosen, "--blend", 0.5, "--set", "window=3", "--out", "told.jsonl")
    told = header_of(tmp_path / "told.jsonl")
    released = load_post_processor(tmp_path / "best.PTH")
    assert told["hashes"]["post_processor"] == released.weights_hash()
    assert (told["settings"]["blend"], told["settings"]["pose"]) == (0.5, "flip")
    assert told["settings"]["matching"]["window"] == 3
    assert told["settings"]["matching"]["temperature"] == 0.02
    assert "per image" in run("score", "told.jsonl")


@pytest.mark.parametrize("protocol", ["pf-pascal", "pf-willow"])
def test_the_same_in_python(two_faces, tmp_path, protocol):
    run(
        "predict",
        *two_faces,
        "--extractor",
        "efficientnet-lite0",
        "--protocol",
        protocol,
        "--out",
        tmp_path / "a",
    )
    matcher = Matcher.from_pretrained("efficientnet-lite0", device="cpu")
    predict(load("pairs", tmp_path, "mine"), matcher, tmp_path / "b", PredictSettings(protocol))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    given = Matcher.from_pretrained("efficientnet-lite0", device="cpu", settings=MatchSettings(window=3))
    predict(load("pairs", tmp_path, "mine"), given, tmp_path / "c", PredictSettings(protocol))
    assert header_of(tmp_path / "c")["settings"]["matching"] == asdict(MatchSettings(window=3))


def test_predict_from_stored_features_with_a_post_processor(two_faces, for_lite, tmp_path):
    for_lite.save_pretrained(tmp_path / "saved")
    asked = [*two_faces, "--extractor", "efficientnet-lite0", "--post-processor", tmp_path / "saved"]
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    run("predict", *asked, "--out", paths[0])
    for path in paths[1:]:
        run("predict", *asked, "--cache", tmp_path / "cache", "--out", path)
    assert paths[1].read_bytes() == paths[2].read_bytes()
    fresh, stored = (header_of(path) for path in paths[:2])
    assert stored["settings"] == {**fresh["settings"], "stored": "fp16"}
    assert stored["hashes"] == fresh["hashes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--post-processor", "other"],
            r"was trained on features of dinov2-base\(\), not of efficientnet-lite0",
        ),
        (["--post-processor", "absent.PTH"], "absent.PTH: no such file"),
        (["--post-processor", "fitting", "--blend", "1.5"], "the blend must be 0 .* got 1.5"),
        (["--post-processor", "none", "--blend", "0.5"], "a blend of 0.5 needs a post-processor"),
        (["--post-processor", "odd"], "info.matching in the post-processor's config: unknown key 'windw'"),
    ],
)
def test_predict_refuses_a_post_processor(two_faces, for_lite, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for_lite.save_pretrained("fitting")
    for name, info in (("other", {"extractor": "dinov2-base()"}), ("odd", {"matching": {"windw": 3}})):
        for_lite.info = info
        for_lite.save_pretrained(name)
    with pytest.raises(InputError, match=message):
        run("predict", *two_faces, *options)
    assert not list(tmp_path.glob("pairs-*"))


def test_evaluate_real_images(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    root = shared("PF-dataset-WILLOW")
    out = tmp_path / "willow.jsonl"
    asked = [
        "--dataset",
        "pf-willow",
        "--root",
        root,
        "--split",
        "test",
        "--pairs",
        6,
        "--device",
        "cpu",
        "--out",
        out,
    ]
    text = run("evaluate", *asked)
    assert "protocol pf-willow" in text
    assert "PCK by category" in text
    assert len(out.read_text(encoding="utf-8").splitlines()) == 7
    content = json.loads(run("score", out, "--json"))
    # Ten points a pair, and the network finds far more of them than chance would.
    assert content["overall"]["standard"]["keypoints"] == 60
    assert content["overall"]["standard"]["per_image"][2] > 0.3
    with pytest.raises(InputError, match=r"--pairs 'few': give a number or all"):
        run("predict", *asked[:7], "few")
    with pytest.raises(InputError, match="another run"):
        run("predict", *asked, "--set", "window=3")


def test_the_documented_command_for_released_weights(tmp_path, monkeypatch, caplog):
    pytest.importorskip("diffusers")
    from geoaware.features.captioner import convert_captioner
    from geoaware.studies.tiny_networks import odise_state, tiny_clip, tiny_dinov2, tiny_stable_diffusion

    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    (line,) = (each for each in page.splitlines() if "--protocol released" in each)
    monkeypatch.chdir(tmp_path)
    made_up(tmp_path / "SPair-71k")
    torch.save({"model": odise_state()}, "odise.pth")
    convert_captioner("odise.pth", "captioner.safetensors")
    torch.save(PostProcessor((64, 128, 128, 24), width=128).state_dict(), "best_856.PTH")
    settings = {
        "sd15.weights": tiny_stable_diffusion(tmp_path / "sd15"),
        "sd15.clip_weights": tiny_clip(tmp_path / "clip"),
        "dinov2-base.weights": tiny_dinov2(tmp_path / "dino", registers=False),
        "sd15.canvas": 192,
        "sd15.crop": 128,
        "dinov2-base.canvas": 168,
    }
    small = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = line.split()[1:]
    with caplog.at_level("WARNING", "geoaware.features.refined"):
        run(*words, *small, "--workers", 1, "--out", "a.jsonl")
        assert not caplog.records
        header = header_of(tmp_path / "a.jsonl")
        assert header["protocol"] == "released"
        assert header["settings"]["matching"]["outside"] == "zero"
        assert "captioner=none" not in header["extractor"]
        assert "positions=original" in header["extractor"]
        place = words.index("--set")
        run(*words[:place], *words[place + 2 :], *small, "--workers", 1, "--out", "b.jsonl")
        assert "captioner=none" in caplog.text
        assert "captioner=none" in header_of(tmp_path / "b.jsonl")["extractor"]
