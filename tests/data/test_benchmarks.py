from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoaware.commands.options import DataOptions, PairOptions, ProtocolOptions, load_data
from geoaware.data import DataSet, load, object_mask
from geoaware.data.awa_pose import PARTS
from geoaware.data.check import check
from geoaware.data.flow import read_flow, write_flow
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.predictions import records
from geoaware.evaluation.protocols import usual_protocol
from geoaware.evaluation.score import score_file
from geoaware.runs.errors import InputError
from tests.data import benchmarks as made
from tests.evaluation.tiny import tiny_matcher

FOLDERS = {
    "cub": (made.cub, "all"),
    "awa-pose": (made.awa_pose, "all"),
    "tss": (made.tss, "test"),
    "spair-u": (made.spair_u, "test"),
    "soco": (made.soco, "intra"),
}


def names(data: DataSet) -> list[tuple[str, str]]:
    return [(pair.source.path.stem, pair.target.path.stem) for pair in data.pairs]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_fine_and_gone_through_to_its_figures(name: str, tmp_path: Path) -> None:
    make, split = FOLDERS[name]
    root = make(tmp_path / "root")
    findings = check(name, root)
    assert findings.problems == []
    assert any(fact.startswith(f"{split}: ") for fact in findings.facts)
    data = load(name, root, split)
    path = predict(data, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings(usual_protocol(data).name))
    result = score_file(path, draws=0)
    assert result.protocol == {"spair-u": "paper", "awa-pose": "cub"}.get(name, name)
    judged = [pair for pair in data.pairs if name != "awa-pose" or pair.target.box]
    assert result.overall.standard.pairs == len(judged)
    if name == "tss":  # what is moved by a whole cell looks the same there
        assert result.overall.standard.values["category_per_image"][0] > 0.95


class TestCub:
    def test_parts_boxes_and_masks(self, tmp_path: Path) -> None:
        root = made.cub(tmp_path)
        made.saved(root / f"segmentations/{made.SPECIES[0]}/bird_1.png", 1)
        mask = np.zeros((40, 60), np.uint8)
        mask[5:9] = 255
        Image.fromarray(mask).save(root / f"segmentations/{made.SPECIES[0]}/bird_1.png")
        data = load("cub", root, "all", pairs="all")
        bird = data.images[0]
        assert (bird.id, bird.category) == (f"{made.SPECIES[0]}/bird_1.jpg", made.SPECIES[0])
        assert bird.box == (1.0, 2.0, 41.0, 32.0)
        assert bird.keypoints.visible_ids == tuple(range(2, 16))
        assert bird.keypoints.at([2, 15]).tolist() == [[6.0, 2.0], [45.0, 2.0]]
        found = object_mask(bird)
        assert found is not None
        assert found.sum() == 240
        assert object_mask(data.images[1]) is None
        schema = data.schema(data.pairs[0])
        assert [schema.names[each] for each in (1, 7, 15)] == ["back", "left eye", "throat"]
        assert schema.flip_pairs == ((7, 11), (8, 12), (9, 13))
        assert schema.subgroups == {"eye": (7, 11), "leg": (8, 12), "wing": (9, 13)}

    def test_splits_and_pairs(self, tmp_path: Path) -> None:
        root = made.cub(tmp_path)
        assert names(load("cub", root, "test")) == [("bird_1", "bird_2"), ("bird_2", "bird_1")]
        assert len(load("cub", root, "train", pairs="all")) == 6
        assert len(load("cub", root, "all")) == 20
        assert len(load("cub", root, "all", pairs=7)) == 7
        assert len(load("cub", root, "all", pairs=7, across=False)) == 6 + 2
        assert load("cub", root, "all", categories=[made.SPECIES[1]]).categories == (made.SPECIES[1],)
        pair = load("cub", root, "all", pairs="all").pairs[3]
        assert (pair.source.path.stem, pair.target.path.stem) == ("bird_1", "bird_5")
        assert pair.category == made.SPECIES[0]
        assert pair.common_ids == (2, 3, 4, *range(6, 16))

    def test_the_published_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = made.cub(tmp_path)
        made.written(root / "random_pairs.txt", "4 1", "2 3", "4 1", "5 2")
        monkeypatch.setattr("geoaware.data.pools.FIRST", 3)
        data = load("cub", root, "all")
        assert names(data) == [("bird_4", "bird_1"), ("bird_2", "bird_3")]
        assert data.pairs[0].category == made.SPECIES[1]
        assert "pairs of random_pairs.txt" in data.notes
        assert len(load("cub", root, "test")) == 2  # the list is of all birds
        assert names(load("cub", root, "all", pairs="random_pairs.txt"))[-1] == ("bird_5", "bird_2")
        for line in ("4 9", "4", "4 1 2"):
            made.written(root / "own.txt", "4 1", line)
            with pytest.raises(InputError, match=rf"own\.txt, line 2: '{line}' is not two images of this sp"):
                load("cub", root, "all", pairs="own.txt")

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            (
                "parts/part_locs.txt",
                "1 2 6.0 2.0 1",
                "1 2 6.0 x 1",
                r"line 2: x, y, visible, number 2 is 'x'",
            ),
            ("parts/part_locs.txt", "1 2 6.0 2.0 1", "1 2 6.0 2.0", r"line 2: '1 2 6.0 2.0'; expected image"),
            ("parts/part_locs.txt", "1 2 6.0", "1 two 6.0", r"line 2: the part is 'two'; expected a whole"),
            ("bounding_boxes.txt", "2 2.0 2.0", "2 2.0 nan", r"line 2: the box, number 2 is 'nan'"),
            (
                "bounding_boxes.txt",
                "2 2.0 2.0 40.0 30.0\n",
                "",
                r"images\.txt, line 2: not all of parts/part_",
            ),
            ("train_test_split.txt", "2 0", "2 test", r"train_test_split\.txt, line 2 is 'test'; expected 0"),
            ("parts/parts.txt", "15 throat\n", "", r"keypoint 15 is none of '001.*, which has 0 … 14"),
            ("images.txt", "bird_3.jpg", "gone.jpg", r"gone\.jpg: no such"),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
        root = made.cub(tmp_path)
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load("cub", root, "all")
        assert any(message[-9:] in each for each in check("cub", root).problems)

    def test_a_check_goes_on_after_the_first_image(self, tmp_path: Path) -> None:
        root = made.cub(tmp_path)
        for name in ("bird_1", "bird_3"):
            (root / f"images/{made.SPECIES[0]}/{name}.jpg").unlink()
        problems = "\n".join(check("cub", root).problems)
        assert "bird_1.jpg: no such file" in problems
        assert "bird_3.jpg: no such file" in problems

    def test_wrong_options(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no folder 'images' in it"):
            load("cub", tmp_path, "all")
        root = made.cub(tmp_path)
        with pytest.raises(InputError, match="has no split 'val'; choose trn, test, all"):
            load("cub", root, "val")
        with pytest.raises(InputError, match="has no species 'owl' in split 'test'"):
            load("cub", root, "test", categories=["owl"])


class TestAwaPose:
    def test_parts_by_name(self, tmp_path: Path) -> None:
        data = load("awa-pose", made.awa_pose(tmp_path), "all", pairs="all")
        fox, other, panda = data.images
        assert (fox.id, fox.category, fox.box) == ("fox/fox_10001.jpg", "fox", (2.0, 3.0, 50.0, 33.0))
        assert [PARTS[each] for each in (0, 8, 38)] == ["nose", "right_antler_base", "body_middle_left"]
        assert len(fox.keypoints.visible_ids) == 39 - 4
        assert fox.keypoints.at([0, 38]).tolist() == [[0.5, 7.0], [38.5, 7.0]]
        assert other.keypoints.at([0]).tolist() == [[9.0, 8.0]]
        assert other.box is None
        assert 0 not in panda.keypoints.visible_ids
        assert data.schema(data.pairs[0]).partner(PARTS.index("front_left_paw")) == PARTS.index(
            "front_right_paw"
        )
        assert any("1 animals beside the first of their image" in note for note in data.notes)
        assert any("1 of 3 objects as targets, because they have no box" in note for note in data.notes)

    def test_pairs(self, tmp_path: Path) -> None:
        root = made.awa_pose(tmp_path)
        assert len(load("awa-pose", root, "all")) == 6
        assert len(load("awa-pose", root, "all", across=False)) == 2
        assert len(load("awa-pose", root, "all", categories=["fox"])) == 2
        made.written(root / "random_pairs.txt", "giant+panda/giant+panda_10003.jpg fox/fox_10001.jpg")
        data = load("awa-pose", root, "all")
        assert names(data) == [("giant+panda_10003", "fox_10001")]
        assert data.pairs[0].common_ids[:2] == (1, 2)
        with pytest.raises(InputError, match="has no class 'owl'"):
            load("awa-pose", root, "all", categories=["owl"])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "damaged, no valid pickle"),
            (pickle.dumps({"a1": {}})[:-4], "damaged, no valid pickle"),
            (pickle.dumps([1, 2]), "is not an annotation of AwA-Pose"),
            (pickle.dumps({"a1": made.animal(nose=[1])}), r"nose is \[1\]; expected two numbers x, y"),
            (pickle.dumps({"a1": made.animal(nose=["x", 1])}), "nose, number 1 is 'x'; expected a number"),
            (pickle.dumps({"a1": made.animal(bbox=[1, 2])}), r"bbox is \[1, 2\]; expected corners"),
            (pickle.dumps({"a1": made.animal(nose=np.float64(3))}), "is no pickle of plain values"),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        root = made.awa_pose(tmp_path)
        (root / "Annotations/fox/fox_10002.pickle").write_bytes(content)
        with pytest.raises(InputError, match=rf"fox_10002\.pickle.*{message}"):
            load("awa-pose", root, "all")
        assert any("fox_10002.pickle" in each for each in check("awa-pose", root).problems)

    def test_unknown_parts_are_counted(self, tmp_path: Path) -> None:
        root = made.awa_pose(tmp_path)
        content = pickle.dumps({"a1": made.animal(wing=[1, 2])})
        (root / "Annotations/fox/fox_10001.pickle").write_bytes(content)
        data = load("awa-pose", root, "all")
        assert any("1 keypoints of a name that is not AwA-Pose's" in note for note in data.notes)


class TestTss:
    def test_points_are_foreground_pixels_moved_by_the_flow(self, tmp_path: Path) -> None:
        data = load("tss", made.tss(tmp_path), "test", step=1)
        assert [pair.id for pair in data.pairs] == [
            f"{each}/{way}" for each in ("FG3DCar/001_005", "PASCAL/bike_01_02") for way in ("1to2", "2to1")
        ]
        forth, back = data.pairs[:2]
        assert (forth.category, forth.source.path.name, forth.target.path.name) == (
            "FG3DCar",
            "image1.png",
            "image2.png",
        )
        source, target = forth.source.keypoints, forth.target.keypoints
        # The rectangle of columns 12 … 59 and rows 6 … 33, row by row.
        assert forth.common_ids == tuple(range(48 * 28))
        assert source.xy[[0, 1, 48]].tolist() == [[12.0, 6.0], [13.0, 6.0], [12.0, 7.0]]
        assert (target.xy - source.xy).unique(dim=0).tolist() == [[6.0, 6.0]]
        assert back.source.keypoints.xy[0].tolist() == [18.0, 12.0]
        assert back.target.keypoints.xy[0].tolist() == [12.0, 6.0]
        mask = object_mask(forth.source)
        assert mask is not None
        assert mask.sum() == 48 * 28
        assert data.threshold_base == "image"

    def test_fewer_points(self, tmp_path: Path) -> None:
        root = made.tss(tmp_path)
        data = load("tss", root, "test")
        assert "foreground pixels of every 4th row and column" in data.notes
        # Columns 12, 16 … 56 and rows 8, 12 … 32.
        assert len(data.pairs[0].common_ids) == 12 * 7
        assert data.pairs[0].source.keypoints.xy[[0, -1]].tolist() == [[12.0, 8.0], [56.0, 32.0]]
        assert load("tss", root, "test", categories=["PASCAL"]).categories == ("PASCAL",)
        with pytest.raises(InputError, match="no group 'cars'"):
            load("tss", root, "test", categories=["cars"])
        with pytest.raises(InputError, match="step=0"):
            load("tss", root, "test", step=0)

    def test_what_leads_outside_or_nowhere(self, tmp_path: Path) -> None:
        root = made.tss(tmp_path)
        folder = root / "PASCAL/bike_01_02"
        flow = read_flow(folder / "flow1.flo")
        flow[:20] = (30.0, 2.0)
        write_flow(folder / "flow1.flo", flow)
        write_flow(folder / "flow2.flo", np.full((52, 78, 2), np.nan))
        data = load("tss", root, "test", step=1, categories=["PASCAL"])
        assert [pair.id for pair in data.pairs] == ["PASCAL/bike_01_02/1to2"]
        # Columns 49 … 59 of rows 6 … 19 lead outside: an image's edge belongs to it.
        assert len(data.pairs[0].common_ids) == 48 * 28 - 11 * 14
        assert any("154 foreground pixels whose counterpart lies outside" in note for note in data.notes)
        assert any("1 directions without a foreground pixel" in note for note in data.notes)

    def test_predictions_hold_no_parts(self, tmp_path: Path) -> None:
        data = load("tss", made.tss(tmp_path), "test")
        path = predict(data, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings("tss"))
        first = next(records(path))
        assert "target_keypoints" not in first
        assert first["size"] == 78.0
        result = score_file(path, draws=0)
        assert result.errors is None
        assert result.by_keypoint == ()
        assert result.averaging == "category_per_image"
        table = predict(data, tiny_matcher(), tmp_path / "p.parquet", PredictSettings("tss"))
        assert list(records(table)) == list(records(path))
        assert score_file(table, draws=0) == result

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("flow1.flo", b"", r"flow1\.flo: is no flow field"),
            ("flow1.flo", b"PIEH" + bytes(8), r"flow1\.flo: damaged, 12 bytes are not a flow field of 0x0"),
            ("flow2.flo", None, r"flow2\.flo: no such file; expected a flow field"),
            ("mask2.png", None, r"mask2\.png: no such file"),
            ("image2.png", b"nothing", r"image2\.png: "),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
        root = made.tss(tmp_path)
        for group in ("FG3DCar/001_005", "PASCAL/bike_01_02"):
            path = root / group / file
            path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load("tss", root, "test")
        problems = "\n".join(check("tss", root).problems)
        assert f"FG3DCar/001_005/{file}" in problems
        assert f"PASCAL/bike_01_02/{file}" in problems

    def test_sizes_must_agree(self, tmp_path: Path) -> None:
        root = made.tss(tmp_path)
        write_flow(root / "FG3DCar/001_005/flow1.flo", np.zeros((78, 52, 2)))
        with pytest.raises(InputError, match=r"flow1\.flo: of 52x78 pixels, but image1\.png of 78x52"):
            load("tss", root, "test")
        with pytest.raises(InputError, match=r"is not the root of TSS.*perhaps give .*TSS"):
            load("tss", made.tss(tmp_path / "outer/TSS").parent, "test")


class TestSpairU:
    def test_points_and_images(self, tmp_path: Path) -> None:
        data = load("spair-u", made.spair_u(tmp_path / "SPair-U"), "test")
        (pair,) = data.pairs
        assert (pair.id, pair.category) == ("000001-2008_000001-2008_000002:bus", "bus")
        assert pair.common_ids == (0, 1)
        assert pair.target.keypoints.at([0, 1, 2]).tolist() == [[11.0, 20.0], [30.0, 23.0], [44.0, 9.0]]
        assert pair.target.box == (1.0, 2.0, 60.0, 40.0)
        assert pair.source.path.parent == tmp_path / "SPair-71k/JPEGImages/bus"
        assert pair.azimuth_difference == 3
        assert len(data.schema(pair)) == 30
        assert data.schema(pair).flip_pairs == ()

    def test_images_elsewhere(self, tmp_path: Path) -> None:
        root = made.spair_u(tmp_path / "SPair-U")
        (tmp_path / "SPair-71k").rename(tmp_path / "other")
        with pytest.raises(InputError, match="fetch SPair-71k, and name its images by images=FOLDER"):
            load("spair-u", root, "test")
        assert len(load("spair-u", root, "test", images="../other/JPEGImages")) == 1
        (root / "JPEGImages").symlink_to(tmp_path / "other/JPEGImages")
        assert len(load("spair-u", root, "test")) == 1

    def test_names_as_windows_has_them(self, tmp_path: Path) -> None:
        root = made.spair_u(tmp_path / "SPair-U")
        (path,) = (root / "PairAnnotation/test").iterdir()
        path.rename(path.with_name(path.name.replace(":", "_")))
        assert load("spair-u", root, "test").pairs[0].id == "000001-2008_000001-2008_000002:bus"

    def test_disagreement_and_damage(self, tmp_path: Path) -> None:
        root = made.spair_u(tmp_path / "SPair-U")
        (path,) = (root / "PairAnnotation/test").iterdir()
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "trg_kps": [[1, 1], [2, 2]]}), encoding="utf-8")
        assert any(
            "points differ from those of bus/2008_000002" in each for each in check("spair-u", root).problems
        )
        made.written(root / "PairAnnotation/test/nothing.json", "{}")
        with pytest.raises(InputError, match="'nothing' is not NUMBER-SOURCE-TARGET:CATEGORY"):
            load("spair-u", root, "test")
        for each in (root / "PairAnnotation/test").iterdir():
            each.unlink()
        with pytest.raises(InputError, match="holds no pairs; give the folder of SPair-U"):
            load("spair-u", root, "test")


class TestSoco:
    def test_the_same_part_is_right(self, tmp_path: Path) -> None:
        data = load("soco", made.soco(tmp_path), "intra")
        (pair,) = data.pairs
        assert (pair.id, pair.category, pair.answers) == ("car/00001-car_1-car_2", "car", None)
        schema = data.schema(pair)
        assert schema.names == (*made.WHEELS, "roof")
        assert schema.subgroups == {"wheel": (0, 1, 2)}
        assert schema.flip_pairs == ((0, 1),)
        assert pair.common_ids == (0, 2, 3)
        assert pair.target.keypoints.at([2, 3]).tolist() == [[40.0, 32.0], [25.0, 7.0]]
        assert (pair.source.id, pair.source.box) == ("car/car_1.JPEG", (5.0, 3.0, 55.0, 38.0))
        for split in ("train", "test"):
            assert len(load("soco", tmp_path, split)) == 1

    def test_only_what_a_pair_shares_counts_across_categories(self, tmp_path: Path) -> None:
        data = load("soco", made.soco(tmp_path), "cross")
        (pair,) = data.pairs
        assert pair.category == "road"
        assert pair.answers == {2: (2,)}
        assert pair.common_ids == (2,)
        assert (pair.source.id, pair.source.path.parent.name) == ("bus/bus_1.JPEG@road", "bus")
        assert pair.truth([[0.0, 0.0]]).tolist() == [[40.0, 32.0]]

    def test_any_part_of_the_concept_is_right(self, tmp_path: Path) -> None:
        root = made.soco(tmp_path)
        data = load("soco", root, "intra", match="concept")
        (pair,) = data.pairs
        assert pair.answers == {0: (0, 2), 1: (0, 2), 2: (0, 2), 3: (3,)}
        assert pair.common_ids == (0, 1, 2, 3)
        # The nearest wheel of the target, at (10, 32) or (40, 32), is the right place.
        found = [[38.0, 30.0], [11.0, 33.0], [24.0, 32.0], [0.0, 0.0]]
        assert pair.truth(found).tolist() == [[40.0, 32.0], [10.0, 32.0], [10.0, 32.0], [25.0, 7.0]]
        path = predict(data, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings("soco"))
        (record,) = records(path)
        assert record["truth"] == pair.truth(record["predicted"]).tolist()
        assert "target_keypoints" not in record
        assert score_file(path, draws=0).errors is None
        other = predict(
            load("soco", root, "intra"), tiny_matcher(), tmp_path / "q.jsonl", PredictSettings("soco")
        )
        assert path.read_bytes().splitlines()[0] != other.read_bytes().splitlines()[0]

    def test_an_image_with_other_points_is_another(self, tmp_path: Path) -> None:
        root = made.soco(tmp_path)
        content = made.soco_pair("car_1", "car_2", "car")
        content["src_keypoints"] = content["src_keypoints"][1:]
        content["semantic_overlap"] = ["rear_left_wheel", "roof"]
        made.written(root / "PairAnnotations/intra/car/00002-car_1-car_2.json", json.dumps(content))
        data = load("soco", root, "intra")
        assert [image.id for image in data.images] == [
            "car/car_1.JPEG",
            "car/car_2.JPEG",
            "car/car_1.JPEG@00002-car_1-car_2",
        ]
        assert data.pairs[1].common_ids == (2, 3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"src_keypoints": [{"name": "roof"}]}, r"is not the annotation of a pair of SOCO \('pos' is"),
            ({"semantic_overlap": ["door"]}, r"is not the annotation of a pair of SOCO \('door' is"),
            ({"trg_bndbox": [1, 2]}, r"box is \[1, 2\]; expected 4 numbers"),
            ({"trg_image": "gone.JPEG"}, r"gone\.JPEG: no such image"),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        root = made.soco(tmp_path)
        path = root / "PairAnnotations/intra/car/00001-car_1-car_2.json"
        made.written(path, json.dumps(made.soco_pair("car_1", "car_2", "car", **changes)))
        with pytest.raises(InputError, match=message):
            load("soco", root, "intra")
        assert check("soco", root, "intra").problems
        made.written(path, "{")
        with pytest.raises(InputError, match="damaged, no valid JSON"):
            load("soco", root, "intra")

    def test_wrong_options(self, tmp_path: Path) -> None:
        root = made.soco(tmp_path)
        with pytest.raises(InputError, match="no split 'val'; choose intra, cross, trn, test"):
            load("soco", root, "val")
        (problem,) = check("soco", root, "val").problems
        assert problem == "SOCO has no split 'val'; choose intra, cross, trn, test"
        with pytest.raises(InputError, match=r"match.*part"):
            load("soco", root, "intra", match="part")
        with pytest.raises(InputError, match="has no category 'owl'"):
            load("soco", root, "intra", categories=["owl"])
        (root / "PairAnnotations/cross").rename(root / "road")
        with pytest.raises(InputError, match=r"cross: no such folder; unpack PairAnnotations\.zip"):
            load("soco", root, "cross")


def test_the_command_line_takes_their_usual_protocol_and_number_of_pairs(tmp_path: Path) -> None:
    data = load_data(DataOptions("cub", made.cub(tmp_path), "all"), PairOptions("4"))
    assert len(data) == 4
    assert ProtocolOptions().of(data).name == "cub"
    assert ProtocolOptions(protocol="dift").of(data).name == "dift"
