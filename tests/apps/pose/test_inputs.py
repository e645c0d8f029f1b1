from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from geoaware.apps.pose.inputs import read_images, read_labels
from geoaware.runs.errors import InputError


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 255).save(path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("in\\b c.png,left", "backslashes"),
        ("in/b%20c.png,left", "%20"),
        ("IN/b c.PNG,left", "capitals"),
        ("/home/ann/in/b c.png,left", "folders of another place"),
    ],
)
def test_labels_name_images_as_other_systems_spell_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, rule: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with caplog.at_level(logging.INFO):
        assert read_labels(path, ["a.png", "in/b c.png"]) == {"in/b c.png": "left"}
    assert f"{path}: names spelled in another way ({rule}): 1, such as" in caplog.text


def test_labels_that_mean_the_same_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"a.png": "left", "A.png": "right"}')
    with pytest.raises(InputError) as caught:
        read_labels(path, ["a.png"])
    assert str(caught.value) == f"{path}: the names 'a.png' and 'A.png' both lead to a.png; they must differ"


def test_masks_are_found_by_names_in_capitals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    draw(photos / "a.jpg", photos / "b.jpg", masks / "A.PNG", masks / "b.png", masks / "B.JPG")
    with caplog.at_level(logging.INFO):
        found = read_images([photos], masks)
    # Of two that could be meant, the one that is called so exactly.
    assert [each.mask_path for each in found] == [masks / "A.PNG", masks / "b.png"]
    assert f"{masks}: names spelled in another way (capitals): 1, such as 'a.png' is 'A.PNG'" in caplog.text


def test_an_image_that_is_spelled_in_another_way_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"A\.PNG: no such file; .*a\.png is there"):
        read_images([tmp_path / "A.PNG"])
