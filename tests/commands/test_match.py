"""The command line as a user runs it: results, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from geoaware.commands import info, match
from geoaware.commands.match import _TABLE_ROWS, OutputOptions, _print_result
from geoaware.data.exif import INVERSE, TAG, turned_pixels, turned_points, turned_size
from geoaware.data.points_file import QueryPoints
from geoaware.features import EXTRACTORS, Entry
from geoaware.matcher import Matcher
from geoaware.runs.errors import InputError, NotFiniteError
from tests.command_line import assert_refused, geoaware, program
from tests.evaluation.tiny import Blind
from tests.features.test_refined import LITE_CHANNELS, random_network
from tests.toys import face, noise, save_face


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    save_face(folder / "a.png", width=200, height=200)
    (folder / "more").mkdir()
    save_face(folder / "more" / "b.png", width=300, height=240, colour="lightgray")
    save_face(folder / "more" / "c.jpg", colour="khaki")
    return folder


def test_one_pair_with_everything(photos: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "made" / "matches.png", tmp_path / "matches.json"
    done = program(
        "match", photos / "a.png", photos / "more" / "b.png", "--point", "70,100", "--point", "130,100",
        "--out", out, "--json", data, "--pose", "flip",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "confidence" in done.stdout
    assert "pose: " in done.stdout
    assert Image.open(out).format == "PNG"
    content = json.loads(data.read_text())
    assert [match["query"] for match in content["matches"]] == [[70, 100], [130, 100]]
    assert set(content["distances"]) == {"identity", "flip"}
    assert content["extractor"].startswith("efficientnet-lite0")
    assert content["target_size"] == [300, 240]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["matches.json", "matches.png"]


def test_masks_choose_the_pose(photos: Path, tmp_path: Path) -> None:
    a, b = photos / "a.png", photos / "more" / "b.png"
    masks = []
    for name, size in (("a.png", (200, 200)), ("b.png", (300, 240))):
        mask = Image.new("L", size)
        mask.paste(255, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
        mask.save(tmp_path / name)
        masks.append(tmp_path / name)
    data = tmp_path / "m.json"
    distances = []
    for options in ((), ("--mask", masks[0]), ("--mask", masks[0], "--target-mask", masks[1])):
        done = geoaware("match", a, b, "--point", "70,100", "--pose", "flip", "--json", data, *options)
        assert done.returncode == 0, done.stderr
        distances.append(json.loads(data.read_text())["distances"]["identity"])
    # The nearest among fewer cells is never nearer; measured on the object it is another number altogether.
    assert distances[0] != distances[1]
    assert distances[2] > distances[1]
    assert_refused(geoaware("match", a, b, "--point", "5,5", "--target-mask", masks[1]), "--mask")
    assert_refused(
        geoaware("match", a, b, "--point", "5,5", "--mask", masks[1]),
        f"{masks[1]}: mask of",
        "300x240",
        "200x200; give one of the image's size",
    )


def test_a_post_processor(photos: Path, tmp_path: Path) -> None:
    network = random_network(12, LITE_CHANNELS)
    network.save_pretrained(tmp_path / "saved")
    other = random_network(12, (8, 8), extractor="dinov2-base()")
    other.save_pretrained(tmp_path / "other")
    data = tmp_path / "m.json"
    call = (
        "match",
        photos / "a.png",
        photos / "more" / "b.png",
        "--point",
        "70,100",
        "--extractor",
        "lite-frozen",
    )
    done = geoaware(*call, "--json", data, "--post-processor", tmp_path / "saved", "--blend", 0.7)
    assert done.returncode == 0, done.stderr
    content = json.loads(data.read_text())
    assert content["post_processor"] == network.weights_hash()
    assert content["blend"] == 0.7
    assert content["pose_setting"] == "off"
    assert content["settings"]["window"] == 15
    plain = ("--extractor", "efficientnet-lite0", "--json", data)
    assert geoaware(*call, *plain).returncode == 0
    assert "post_processor" not in json.loads(data.read_text())
    assert_refused(geoaware(*call, "--post-processor", tmp_path / "other"), "dinov2-base()", "remedy: ")
    assert_refused(geoaware(*call, "--post-processor", tmp_path / "no.PTH"), "no.PTH: no such file")
    assert_refused(geoaware(*call, *plain, "--blend", 0.5), "needs a post-processor", "(--post-processor)")
    saved = ("--post-processor", tmp_path / "saved")
    assert_refused(geoaware(*call, *saved, "--blend", 2), "the blend must be 0", "got 2.0")


def test_named_points_and_heat_map(photos: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("name,x,y\nleft eye,70,100\nnose,100,136\n")
    heat, data = tmp_path / "heat.png", tmp_path / "m.json"
    done = geoaware(
        "match", photos / "a.png", photos / "more" / "c.jpg", "--points", points, "--heatmap", 1,
        "--out", heat, "--json", data,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left eye" in done.stdout
    assert [match["name"] for match in json.loads(data.read_text())["matches"]] == ["left eye", "nose"]
    assert Image.open(heat).size[0] >= 160


def test_a_folder_goes_on_past_a_bad_image_and_resumes(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    face().save(folder / "1.png")
    (folder / "2.png").write_text("not an image")
    face(colour="gray").save(folder / "3.png")
    found = tmp_path / "found"
    arguments = ("match", photos / "a.png", folder, "--point", "70,100", "--json", found, "--out", found)
    done = geoaware(*arguments)
    assert done.returncode == 1
    assert "2.png: not an image" in " ".join(done.stderr.split())
    assert "2 matched, 0 already there, 1 failed" in done.stderr
    assert sorted(path.name for path in found.iterdir()) == [
        "1.png.json",
        "1.png.png",
        "3.png.json",
        "3.png.png",
    ]
    (found / "3.png.json").unlink()
    done = geoaware(*arguments, "--skip-existing")
    assert "1 matched, 1 already there, 1 failed" in done.stderr


def test_features_that_are_no_numbers_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "load_matcher", lambda *_, **__: Matcher(Blind(), pose="off"))
    (tmp_path / "many").mkdir()
    names = {1: "1.png", 2: "black.png", 3: "3.png", 4: f"{'long' * 62}.png"}
    for number, name in names.items():
        image = noise(117, 117, number) if number != 2 else Image.new("RGB", (117, 117))
        image.save(tmp_path / "many" / name)
    (tmp_path / "many" / "5.png").write_bytes(b"\x89PNG")
    noise(117, 117, 9).save(tmp_path / "a.png")
    app = typer.Typer()
    app.command()(match.match)
    arguments = ("--point", "20,30", "--json", str(tmp_path / "found"))
    done = CliRunner().invoke(app, [str(tmp_path / "a.png"), str(tmp_path / "many"), *arguments])
    assert done.exit_code == 1, done.output
    assert "black.png: the features of the source or of the target are not finite" in done.output
    assert "2 matched, 0 already there, 3 failed" in done.output
    assert len(list((tmp_path / "found").iterdir())) == 2
    black = [str(tmp_path / "a.png"), str(tmp_path / "many" / "black.png"), *arguments[:2]]
    assert isinstance(CliRunner().invoke(app, black).exception, NotFiniteError)


def test_bad_input_is_refused_in_one_line(photos: Path, tmp_path: Path) -> None:
    a, b = photos / "a.png", photos / "more" / "b.png"
    (tmp_path / "empty").mkdir()
    text = tmp_path / "text.png"
    text.write_text("no")
    whole = a.read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    malformed = tmp_path / "points.csv"
    malformed.write_text("1,2\n3,four\n")
    point = ("--point", "5,5")
    assert_refused(program("match", tmp_path / "absent.png", b, *point), "absent.png", "no such file")
    assert_refused(geoaware("match", a, tmp_path / "absent", *point), "absent", "no such file")
    for pair in ((photos / "A.PNG", b), (b, photos / "A.PNG")):
        assert_refused(geoaware("match", *pair, *point), "A.PNG: no such file; ", "a.png is there")
    assert_refused(geoaware("match", text, b, *point), "text.png", "not an image")
    assert_refused(geoaware("match", a, cut, *point), "cut.png", "damaged")
    assert_refused(geoaware("match", a, tmp_path / "empty", *point), "empty", "no images")
    assert_refused(geoaware("match", a, b, "--point", "999,5"), "outside the image of 200x200")
    assert_refused(geoaware("match", a, b, "--point", "nan,5"), "finite")
    assert_refused(geoaware("match", a, b, "--point", "5"), "x,y")
    assert_refused(geoaware("match", a, b), "no points")
    assert_refused(geoaware("match", a, b, "--points", malformed), "points.csv, line 2")
    assert_refused(geoaware("match", a, b, *point, "--extractor", "resnet"), "resnet", "efficientnet-lite0")
    assert_refused(geoaware("match", a, b, *point, "--pose", "spin"), "spin", "rotate")
    assert_refused(geoaware("match", a, b, *point, "--set", "colour=red"), "colour", "canvas")
    assert_refused(geoaware("match", a, b, *point, "--heatmap", 4, "--out", tmp_path / "h.png"), "no query 4")
    assert_refused(geoaware("match", a, b, *point, "--out", tmp_path / "m.xyz"), "m.xyz", ".png")
    assert_refused(geoaware("match", a, b, *point, "--json", tmp_path), "is a folder")
    assert_refused(geoaware("match", a, b, *point, "--out", text / "x.png"), "cannot be written")
    assert_refused(
        geoaware("match", a, b, *point, "--extractor", "dinov2-base", "--set", f"weights={tmp_path}"),
        "config.json",
    )
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(photos: Path, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = geoaware(
        "match", photos / "a.png", photos / "a.png", "--point", "5,5", "--json", tmp_path / "x.json"
    )
    tmp_path.chmod(stat.S_IRWXU)
    assert_refused(done, "cannot be written")


def test_unknown_options_and_commands_are_usage_errors() -> None:
    for arguments in (("match",), ("match", "a", "b", "--colour"), ("paint",)):
        done = geoaware(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = program("--debug", "match", tmp_path / "absent.png", tmp_path, "--point", "1,1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_info_and_help() -> None:
    done = geoaware("info", "--json")
    facts = json.loads(done.stdout)
    assert facts["extractors"]["efficientnet-lite0"]["here"] == "ready"
    assert "geoaware" in facts["versions"]
    assert "dinov2-giant-registers" in geoaware("info").stdout
    assert "Examples:" in geoaware("match", "--help").stdout
    assert geoaware("--version").stdout.startswith("geoaware ")


def test_info_lists_shipped_post_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoaware.features.refined.SHIPPED", tmp_path)
    network = random_network(12, (8, 8), extractor="dinov2-base(canvas=840)", matching={"blend": 0.6})
    network.save_pretrained(tmp_path / "[red]small")
    app = typer.Typer()
    app.command()(info.info)
    facts = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    count = sum(each.numel() for each in network.parameters())
    line = {"parameters": count, "extractor": "dinov2-base(canvas=840)", "blend": 0.6}
    assert facts["post_processors"] == {"[red]small": line}
    shown = CliRunner().invoke(app, []).stdout
    assert f"post-processor [red]small: {count:,} parameters, blend 0.6, for dinov2-base\n" in shown


def test_examples_come_from_installed_packages(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs the extra 'examples'")
    done = geoaware("examples", tmp_path / "photos")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "photos" / "chelsea.png").size == (451, 300)
    assert "chelsea.png" in (tmp_path / "photos" / "SOURCES.txt").read_text()


@pytest.mark.parametrize("name", ["m.psd", "m.h5", "m.xyz", "m"])
def test_a_format_without_images_is_found_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}: no image can be written as .*; end the name in \.png"):
        OutputOptions(tmp_path / name).check(into_folder=False)
    OutputOptions(tmp_path / "folder").check(into_folder=True)
    for fine in ("m.PNG", "m.jpg", "m.tif", "m.webp", "new/m.pdf"):
        OutputOptions(tmp_path / fine).check(into_folder=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [_TABLE_ROWS, _TABLE_ROWS + 1])
def test_many_points_are_printed_in_plain_columns(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    points = torch.rand(count, 2, dtype=torch.float64) * 100
    found = {"queries": points, "points": points, "confidence": points[:, 0], "cycle_error": points[:, 1]}
    matches = SimpleNamespace(**found, distances={}, pose="flip")
    names = [f"[bold]point[/x] :eye: {number}" for number in range(count)]
    _print_result(matches, QueryPoints([], names))  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert out.endswith("pose: flip (alignment off)\n")
    assert sum("[bold]point[/x] :eye:" in line for line in out.splitlines()) == count
    assert ("┃" in out) == (count == _TABLE_ROWS)


class TestExif:
    """A and B are stored turned by EXIF; what comes out is what comes out of the upright images."""

    @pytest.fixture(params=[(6, 8), (3, 1), (2, 7)])
    def turns(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Writes each image and A's mask twice: upright, and as stored with its orientation."""
        monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
        for name, turn, size in zip("ab", request.param, ((200, 160), (150, 180)), strict=True):
            upright = np.asarray(face(*size, colour="orange" if name == "a" else "gray"))
            mask = np.zeros(size[::-1], dtype=np.uint8)
            mask[20:90, 30:120] = 255
            exif = Image.Exif()
            exif[TAG] = turn
            Image.fromarray(upright).save(tmp_path / f"{name}.png")
            Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
            stored = turned_pixels(upright, INVERSE[turn])
            Image.fromarray(stored).save(tmp_path / f"{name}_stored.png", exif=exif)
            Image.fromarray(turned_pixels(mask, INVERSE[turn])).save(tmp_path / f"{name}_stored_mask.png")
        return request.param

    def found(self, folder: Path, a: str, b: str, *more: object) -> tuple[dict[str, Any], str]:
        app = typer.Typer()
        app.command()(match.match)
        words = [folder / a, folder / b, "--json", folder / "m.json", "--extractor", "toy", "--pose", "flip"]
        done = CliRunner().invoke(app, list(map(str, [*words, *more])), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads((folder / "m.json").read_text()), done.stderr

    def test_points_of_the_upright_image(self, turns: tuple[int, int], tmp_path: Path) -> None:
        asked = ("--point", "60,40", "--point", "140,75.5")
        plain, said = self.found(tmp_path, "a.png", "b.png", *asked)
        assert not said
        turned, said = self.found(tmp_path, "a_stored.png", "b_stored.png", *asked, "--exif", "upright")
        assert turned["matches"] == plain["matches"]
        assert turned["source_size"] == [200, 160]
        # Nobody can tell whether the points are of the pixels before or after the turn.
        assert f"a_stored.png: is turned by EXIF (orientation {turns[0]})" in said

    def test_points_of_the_stored_pixels(self, turns: tuple[int, int], tmp_path: Path) -> None:
        upright = torch.tensor([[60.0, 40.0], [140.0, 75.5]], dtype=torch.float64)
        stored = turned_points(upright, (200, 160), INVERSE[turns[0]]).tolist()
        masks = ("--mask", tmp_path / "a_mask.png", "--target-mask", tmp_path / "b_mask.png")
        plain, _ = self.found(tmp_path, "a.png", "b.png", "--point", "60,40", "--point", "140,75.5", *masks)
        turned, said = self.found(
            tmp_path, "a_stored.png", "b_stored.png", *(f"--point={x},{y}" for x, y in stored),
            "--mask", tmp_path / "a_stored_mask.png", "--target-mask", tmp_path / "b_stored_mask.png",
            "--exif", "stored", "--out", tmp_path / "m.png",
        )  # fmt: skip
        assert not said
        assert turned["distances"] == plain["distances"]
        assert turned["source_size"] == list(turned_size((200, 160), turns[0]))
        assert [each["query"] for each in turned["matches"]] == stored
        there = torch.tensor([each["match"] for each in plain["matches"]], dtype=torch.float64)
        expected = turned_points(there, (150, 180), INVERSE[turns[1]])
        assert torch.allclose(torch.tensor([each["match"] for each in turned["matches"]]).double(), expected)
        # The image that is drawn shows both upright.
        assert Image.open(tmp_path / "m.png").size == Image.open(self.drawn(tmp_path)).size

    def drawn(self, folder: Path) -> Path:
        self.found(folder, "a.png", "b.png", "--point", "60,40", "--out", folder / "plain.png")
        return folder / "plain.png"

    def test_a_folder_of_both_kinds(self, turns: tuple[int, int], tmp_path: Path) -> None:
        folder = tmp_path / "many"
        folder.mkdir()
        for name in ("b.png", "b_stored.png"):
            (tmp_path / name).rename(folder / name)
        app = typer.Typer()
        app.command()(match.match)
        words = [tmp_path / "a.png", folder, "--point", "60,40", "--json", folder, "--extractor", "toy"]
        done = CliRunner().invoke(app, list(map(str, [*words, "--exif", "stored"])), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        plain, turned = (
            json.loads((folder / f"{name}.json").read_text())["matches"][0]["match"]
            for name in ("b.png", "b_stored.png")
        )
        ((x, y),) = turned_points(torch.tensor([plain]).double(), (150, 180), INVERSE[turns[1]]).tolist()
        assert turned == pytest.approx([x, y], abs=0.011)

    @pytest.mark.parametrize("given", ["Upright", "raw"])
    def test_what_it_is_not(self, photos: Path, given: str) -> None:
        done = geoaware("match", photos / "a.png", photos / "a.png", "--point", "5,5", "--exif", given)
        assert_refused(done, f"exif={given}: choose upright or stored (--exif)")
