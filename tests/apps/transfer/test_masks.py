"""Masks that are carried from sources to other images."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from geoaware.apps.transfer import (
    TransferSettings,
    list_targets,
    read_sources,
    read_targets,
    transfer,
    with_detections,
)
from geoaware.apps.transfer.masks import Cells, Covered, Outline, cells_of, covered_cells
from geoaware.apps.transfer.review import write_review
from geoaware.data.masks import decode_segmentation, encode_segmentation
from geoaware.method.geometry import Canvas
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from tests.apps.transfer.test_detections import mega, seen, write
from tests.apps.transfer.tiny import (
    SIDE,
    category,
    matcher,
    photos,
    world,
    write_sources,
)
from tests.reference import transfer as slow

CARRY = TransferSettings(threshold=0.0, margin=0.0, carry_masks=True)


def scene() -> np.ndarray:
    """Which pixels of the scene belong to the object: a rectangle in whole cells of every view."""
    mask = np.zeros((180, 180), dtype=bool)
    mask[27:99, 36:90] = True
    return mask


def view(dx: int, dy: int) -> Image.Image:
    """A part of the scene, in which the object is reddish: colours tell it from the background."""
    pixels = np.array(world())
    pixels[..., 0] = np.where(scene(), 200 + pixels[..., 0] // 5, pixels[..., 0] // 5)
    return Image.fromarray(pixels[dy : dy + SIDE, dx : dx + SIDE])


def seen_of(dx: int, dy: int) -> np.ndarray:
    return scene()[dy : dy + SIDE, dx : dx + SIDE]


def masked(folder: Path, offsets: Any = ((0, 0), (9, 9)), without: tuple[int, ...] = ()) -> Path:
    """Sources with masks: the first as a file, the others as run lengths."""
    path = write_sources(folder, offsets)
    content = json.loads(path.read_text())
    (folder / "masks").mkdir()
    for number, (entry, at) in enumerate(zip(content["annotations"], offsets, strict=True)):
        view(*at).save(folder / "images" / f"s{number + 1}.png")
        if number in without:
            continue
        if number:
            entry["segmentation"] = encode_segmentation(seen_of(*at))
        else:
            Image.fromarray(seen_of(*at)).save(folder / "masks" / "first.png")
            content["images"][number]["mask_file_name"] = "first.png"
            entry["mask_file_name"] = "first.png"
    path.write_text(json.dumps(content))
    return path


def overlap(entry: dict[str, Any], truth: np.ndarray) -> float:
    found = decode_segmentation(entry["segmentation"], truth.shape[::-1], "found")
    return float((found & truth).sum() / (found | truth).sum())


def entries(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["annotations"])


def test_masks_move_with_the_image(tmp_path: Path) -> None:
    sources = read_sources(masked(tmp_path / "s", without=(1,)))
    folder = tmp_path / "t"
    folder.mkdir()
    for name, (dx, dy) in {"a": (18, 9), "b": (0, 27)}.items():
        view(dx, dy).save(folder / f"{name}.png")
    out = transfer(sources, list_targets([folder]), matcher(), tmp_path / "out.json", CARRY).out
    first, second = entries(out)
    # A cell has nine pixels, and the edge lies between two of them.
    assert overlap(first, seen_of(18, 9)) > 0.8
    assert overlap(second, seen_of(0, 27)) > 0.8
    coco = COCO(str(out))
    decoded = coco.annToMask(coco.anns[1])
    assert decoded.shape == (SIDE, SIDE)
    assert (decoded == decode_segmentation(first["segmentation"], (SIDE, SIDE), "a")).all()


def test_an_image_of_background_alone_has_no_mask(tmp_path: Path) -> None:
    sources, folder = read_sources(masked(tmp_path / "s")), tmp_path / "t"
    folder.mkdir()
    Image.new("RGB", (SIDE, SIDE), (0, 120, 120)).save(folder / "a.png")
    out = transfer(sources, list_targets([folder]), matcher(), tmp_path / "out.json", CARRY).out
    assert entries(out)[0]["segmentation"] == []


def test_keypoints_are_those_of_a_run_without_masks(tmp_path: Path) -> None:
    sources, targets = read_sources(masked(tmp_path / "s")), list_targets([photos(tmp_path / "t", 2)])
    with_masks, plain = tmp_path / "with.json", tmp_path / "plain.json"
    transfer(sources, targets, matcher(), with_masks, CARRY)
    transfer(sources, targets, matcher(), plain, replace(CARRY, carry_masks=False))
    assert [{**each, "segmentation": []} for each in entries(with_masks)] == entries(plain)
    settings, about = (json.loads(each.read_text())["info"]["run"] for each in (plain, with_masks))
    assert "carry_masks" not in settings["settings"]
    assert "masks" not in settings["sources"]
    assert about["settings"]["carry_masks"] is True


def test_going_on_gives_the_same(tmp_path: Path) -> None:
    sources, targets = read_sources(masked(tmp_path / "s")), list_targets([photos(tmp_path / "t", 4)])
    out = tmp_path / "out.json"
    transfer(sources, targets, matcher(), out, CARRY)
    before = out.read_bytes()
    # What was kept is used again: another threshold costs no work.
    transfer(sources, targets, matcher(), out, replace(CARRY, threshold=0.9))
    again = entries(out)
    assert [each["segmentation"] for each in again] == [
        each["segmentation"] for each in json.loads(before)["annotations"]
    ]
    half = tmp_path / "half.json"
    transfer(sources, replace(targets, rows=targets.rows[:2]), matcher(), half, CARRY)
    transfer(sources, targets, matcher(), half, CARRY)
    assert half.read_bytes() == before


def test_other_masks_are_another_run(tmp_path: Path) -> None:
    path = masked(tmp_path / "s")
    targets, out = list_targets([photos(tmp_path / "t", 1)]), tmp_path / "out.json"
    transfer(read_sources(path), targets, matcher(), out, CARRY)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:40] = True
    Image.fromarray(mask).save(tmp_path / "s" / "masks" / "first.png")
    with pytest.raises(InputError, match="masks"):
        transfer(read_sources(path), targets, matcher(), out, CARRY)


def test_each_object_has_its_mask(tmp_path: Path) -> None:
    sources, corners = read_sources(masked(tmp_path / "s", [(0, 0)])), [(0, 0), (234, 100)]
    (tmp_path / "t").mkdir()
    board = Image.new("RGB", (351, 234))
    for corner in corners:
        board.paste(view(0, 0), corner)
    board.save(tmp_path / "t" / "a.png")
    boxes = [("1", 0.9, [x / 351, y / 234, SIDE / 351, SIDE / 234]) for x, y in corners]
    file = write(tmp_path / "md.json", mega(seen("a.png", *boxes)))
    targets = with_detections(list_targets([tmp_path / "t"]), file, "cat")
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", CARRY).out
    for each, (x, y) in zip(entries(out), corners, strict=True):
        whole = np.zeros((234, 351), dtype=bool)
        whole[y : y + SIDE, x : x + SIDE] = seen_of(0, 0)
        assert overlap(each, whole) > 0.8


def test_a_given_mask_stays_unless_it_is_not_used(tmp_path: Path) -> None:
    sources = read_sources(masked(tmp_path / "s"))
    (tmp_path / "images").mkdir()
    view(0, 0).save(tmp_path / "images" / "000.png")
    given = [[90, 90, 116, 90, 116, 116, 90, 116]]
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "000.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": given}],
        "categories": [category()],
    }
    (tmp_path / "targets.json").write_text(json.dumps(content))
    targets = read_targets(tmp_path / "targets.json", sources)
    kept = transfer(sources, targets, matcher(), tmp_path / "kept.json", CARRY).out
    assert entries(kept)[0]["segmentation"] == given
    carried = transfer(sources, targets, matcher(), tmp_path / "c.json", replace(CARRY, masks=False)).out
    assert overlap(entries(carried)[0], seen_of(0, 0)) > 0.8


def test_the_page_shows_what_is_covered(tmp_path: Path) -> None:
    sources, folder = read_sources(masked(tmp_path / "s", [(0, 0)])), tmp_path / "t"
    folder.mkdir()
    view(0, 0).save(folder / "a.png")
    targets = list_targets([folder])
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", CARRY).out
    page = write_review(out, sources, targets, tmp_path / "r.html").read_text(encoding="utf-8")
    # The source, and the target with its mask.
    plain, shown = (
        np.array(Image.open(io.BytesIO(base64.b64decode(each))), dtype=float)
        for each in re.findall(r'<script type="text/plain" id="image-\d">(.*?)</script>', page)
    )
    brighter = (shown - plain).mean(axis=-1)
    assert abs(brighter[45:80, 50:75].mean()) < 5
    assert brighter[:, 100:].mean() > 50


def test_masks_of_stored_pixels(tmp_path: Path) -> None:
    sources, exif = read_sources(masked(tmp_path / "s")), Image.Exif()
    (tmp_path / "t").mkdir()
    exif[0x0112] = 6
    view(9, 0).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "t" / "a.png", exif=exif)
    targets = list_targets([tmp_path / "t"], exif="stored")
    out = transfer(sources, targets, matcher(), tmp_path / "out.json", CARRY).out
    assert overlap(entries(out)[0], np.rot90(seen_of(9, 0))) > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("none", r"source.json: no source has a mask to carry; draw one, or carry keypoints alone"),
        ("size", r"first.png: mask of 20x30 pixels, image of 117x117"),
        ("empty", r"first.png: "),
        ("whole", "the masks of the sources cover all of their images"),
        ("gone", r"first.png: no such file"),
    ],
)
def test_masks_that_cannot_be_carried(tmp_path: Path, change: str, message: str) -> None:
    path = masked(tmp_path / "s", [(0, 0)], without=(0,) if change == "none" else ())
    file, targets = tmp_path / "s" / "masks" / "first.png", list_targets([photos(tmp_path / "t", 1)])
    masks = {"size": np.ones((30, 20)), "empty": np.zeros((SIDE, SIDE)), "whole": np.ones((SIDE, SIDE))}
    if change in masks:
        Image.fromarray(masks[change].astype(bool)).save(file)
    if change == "gone":
        file.unlink()
    with pytest.raises(InputError, match=message):
        transfer(read_sources(path), targets, matcher(), tmp_path / "out.json", CARRY)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["s", "t"]


def test_the_classifier_is_the_solution_of_its_equation() -> None:
    generator = torch.Generator().manual_seed(3)
    sources = [
        Cells(
            torch.nn.functional.normalize(torch.randn(n, 6, generator=generator), dim=1),
            torch.rand(n, generator=generator),
        )
        for n in (40, 25)
    ]
    outline = Outline.of(sources)
    weights, base = slow.outline([(each[0].numpy(), each[1].numpy()) for each in sources])
    np.testing.assert_allclose(outline.weights.numpy(), weights, atol=1e-4)
    assert outline.base == pytest.approx(base, abs=1e-4)
    features = FeatureMap(torch.randn(6, 4, 4, generator=generator), Canvas(40, 40, 40), "toy")
    found = outline(features).shares
    for row, column in ((0, 0), (2, 3)):
        cell = features.data[:, row, column].double().numpy()
        assert found[row, column] == pytest.approx(cell @ weights / np.linalg.norm(cell) + base, abs=1e-4)


def test_cells_and_pixels_by_hand() -> None:
    # Two cells across, one down, of a canvas of 40 pixels with the image 40 x 20 in its middle.
    mask = np.zeros((20, 40), dtype=bool)
    mask[:, :30] = True
    shares = covered_cells(mask, Canvas(40, 20, 40), 4)
    assert shares.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    canvas = Canvas(40, 40, 40)
    values = np.zeros((4, 4), dtype=np.float32)
    values[:, 2:] = 1
    # The centres of the second and third cell lie at 15 and 25, so the mask begins half way.
    assert (Covered(values, canvas).pixels() == (np.arange(40) >= 20)[None].repeat(40, 0)).all()
    part = Covered(values, Canvas(80, 60, 40, box=(10, 20, 50, 60))).pixels()
    assert part.shape == (60, 80)
    assert part[20:60, 30:50].all()
    assert part.sum() == 40 * 20
    turned = Covered(values, Canvas(40, 40, 40, "rot90")).pixels()
    assert (turned == Covered(np.rot90(values, -1).copy(), canvas).pixels()).mean() > 0.9


def test_cells_are_drawn_alike_each_time() -> None:
    features = FeatureMap(torch.randn(3, 4, 4), Canvas(40, 20, 40), "toy")
    mask = np.zeros((20, 40), dtype=bool)
    mask[:, :20] = True
    everything, some = (cells_of(features, mask, most, 5) for most in (100, 3))
    assert (len(everything.covered), len(some.covered)) == (8, 3)
    assert some.covered.tolist() == cells_of(features, mask, 3, 5).covered.tolist()
    torch.testing.assert_close(everything.descriptors.norm(dim=1), torch.ones(8))
