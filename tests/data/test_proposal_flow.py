from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from geoaware.data import load
from geoaware.runs.errors import InputError
from tests.shared_data import shared


def image(path: Path, size: tuple[int, int] = (60, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def willow(root: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    for place, name in enumerate(names):
        path = root / "car(S)" / f"{name}.png"
        image(path)
        points = np.stack([np.arange(10.0) + place, np.arange(10.0) * 2 + place])
        savemat(path.with_suffix(".mat"), {"pts_coord": points})
    return root


def willow_list(path: Path, *pairs: tuple[str, str], offset: float = 0.0) -> Path:
    header = ["imageA", "imageB"]
    header += [f"{axis}{side}{each}" for side in "AB" for axis in "XY" for each in range(1, 11)]
    lines = [",".join(header)]
    for source, target in pairs:
        values = [offset + each for each in range(40)]
        lines.append(",".join([f"PF-dataset/{source}", f"PF-dataset/{target}", *map(str, values)]))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


class TestWillow:
    def test_real_images(self) -> None:
        root = shared("PF-dataset-WILLOW")
        data_set = load("pf-willow", root, "test")
        assert len(data_set) == 3 * 10 * 9
        assert data_set.categories == ("car(S)", "duck(S)", "motorbike(G)")
        assert data_set.threshold_base == "keypoints"
        assert len({pair.id for pair in data_set.pairs}) == 270
        for each in data_set.images:
            with Image.open(each.path) as opened:
                assert opened.size == each.size
            raw = loadmat(each.path.with_suffix(".mat"))["pts_coord"]
            assert each.keypoints.ids == tuple(range(10))
            assert each.keypoints.xy.tolist() == raw.T.tolist()
        assert any("no subgroups" in note for note in data_set.notes)

    def test_all_ordered_pairs(self, tmp_path: Path) -> None:
        data_set = load("pf-willow", willow(tmp_path), "test", pairs="all")
        found = [(pair.source.path.stem, pair.target.path.stem) for pair in data_set.pairs]
        assert found == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
        assert data_set.pairs[0].source.keypoints.xy[3].tolist() == [3.0, 6.0]

    def test_what_is_no_image_with_points_is_counted(self, tmp_path: Path) -> None:
        root = willow(tmp_path)
        image(root / "car(S)/bare.png")
        (root / "car(S)/d.png").mkdir()
        for name in ("._a.png", "._a.mat", "notes.txt"):
            (root / "car(S)" / name).write_bytes(b"x")
        data_set = load("pf-willow", root, "test")
        assert [image.path.name for image in data_set.images] == ["a.png", "b.png", "c.png"]
        assert "passed over: 1 files of macOS (._NAME), 1 folders named like images" in data_set.notes
        bare = root / "car(S)/bare.png"
        assert f"left out: 1 images without a MAT file beside them ({bare})" in data_set.notes

    def test_list_of_pairs_is_used_when_it_lies_in_the_root(self, tmp_path: Path) -> None:
        root = willow(tmp_path)
        willow_list(root / "test_pairs.csv", ("car(S)/c.png", "car(S)/a.png"))
        (pair,) = load("pf-willow", root, "test").pairs
        assert (pair.source.id, pair.target.id) == ("car(S)/c.png", "car(S)/a.png")
        assert pair.source.keypoints.xy[0].tolist() == [2.0, 2.0]
        assert len(load("pf-willow", root, "test", pairs="all")) == 6

    def test_points_of_the_list_where_there_is_no_mat_file(self, tmp_path: Path) -> None:
        root = willow(tmp_path)
        (root / "car(S)/a.mat").unlink()
        listed = willow_list(tmp_path / "own.csv", ("car(S)/a.png", "car(S)/b.png"))
        (pair,) = load("pf-willow", root, "test", pairs=str(listed)).pairs
        # Ten x of A, ten y of A, ten x of B, ten y of B; B has its own file.
        assert pair.source.keypoints.xy[:2].tolist() == [[0.0, 10.0], [1.0, 11.0]]
        assert pair.target.keypoints.xy[0].tolist() == [1.0, 1.0]

    def test_columns_are_read_by_their_names(self, tmp_path: Path) -> None:
        root = willow(tmp_path)
        (root / "car(S)/a.mat").unlink()
        listed = willow_list(tmp_path / "own.csv", ("car(S)/a.png", "car(S)/b.png"))
        rows = [line.split(",") for line in listed.read_text(encoding="utf-8").splitlines()]
        listed.write_text("\n".join(",".join(row[::-1]) for row in rows), encoding="utf-8")
        (pair,) = load("pf-willow", root, "test", pairs=str(listed)).pairs
        assert pair.source.id == "car(S)/a.png"
        assert pair.source.keypoints.xy[:2].tolist() == [[0.0, 10.0], [1.0, 11.0]]
        listed.write_text("\n".join(",".join(row) for row in rows[1:]), encoding="utf-8")
        (same,) = load("pf-willow", root, "test", pairs=str(listed)).pairs
        assert same.source.keypoints.xy.tolist() == pair.source.keypoints.xy.tolist()

    def test_bad_input(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            load("pf-willow", tmp_path / "nowhere", "test")
        with pytest.raises(InputError, match="no split 'trn'; choose test"):
            load("pf-willow", tmp_path, "trn")
        root = willow(tmp_path / "outer" / "PF-dataset")
        with pytest.raises(InputError, match=r"no images with MAT files below it; give .*PF-dataset"):
            load("pf-willow", tmp_path / "outer", "test")
        (root / "car(S)/b.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut short")
        with pytest.raises(InputError, match=r"b\.mat: damaged, no valid MAT file"):
            load("pf-willow", root, "test")
        savemat(root / "car(S)/b.mat", {"other": np.zeros((2, 10))})
        with pytest.raises(InputError, match=r"b\.mat: has no matrix 'pts_coord'"):
            load("pf-willow", root, "test")
        savemat(root / "car(S)/b.mat", {"pts_coord": np.zeros((2, 7))})
        with pytest.raises(InputError, match=r"b\.mat: 'pts_coord' has shape \(2, 7\)"):
            load("pf-willow", root, "test")
        savemat(root / "car(S)/b.mat", {"pts_coord": np.full((2, 10), np.nan)})
        assert {image.path.name for image in load("pf-willow", root, "test").images} == {"a.png", "c.png"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("imageA,imageB\n", "no rows below its header"),
            ("imageA,imageB\nx,y,1\n", "line 2: 3 columns"),
            ("\nimageA,imageB\n\n , \nx,y,1\n", "line 5: 3 columns"),
            ('imageA,"image\nB"\n\nx,y,1\n', "line 4: 3 columns"),
            (
                "imageA\n" + ",".join(["a/b.png", "a/b.png"] + ["x"] * 40),
                "line 2: a coordinate is 'x'; expected a number",
            ),
            ("imageA\n" + ",".join(["a/b.png", "a/b.png"] + ["1"] * 40), "b.png: no such file"),
        ],
    )
    def test_bad_lists(self, tmp_path: Path, text: str, message: str) -> None:
        root = willow(tmp_path)
        (root / "test_pairs.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load("pf-willow", root, "test")


def pascal(root: Path) -> Path:
    """Two cats: rows 0 to 3 of 'kps', row 1 missing on the first, row 3 on the second."""
    points = {
        "one": [[1.0, 2.0], [math.nan, math.nan], [5.0, 6.0], [7.0, 8.0]],
        "two": [[11.0, 12.0], [13.0, 14.0], [15.0, 16.0], [math.nan, math.nan]],
    }
    for name, rows in points.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations/cat").mkdir(parents=True, exist_ok=True)
        savemat(
            root / f"Annotations/cat/{name}.mat", {"kps": np.array(rows), "bbox": np.array([[1, 2, 30, 40]])}
        )
    folder = "PF-dataset-PASCAL/JPEGImages"
    (root / "test_pairs.csv").write_text(
        "source_image,target_image,class,XA,YA,XB,YB\n"
        f"{folder}/one.jpg,{folder}/two.jpg,8,1;5,2;6,11;15,12;16\n",
        encoding="utf-8",
    )
    (root / "trn_pairs.csv").write_text(
        "source_image,target_image,class,flip\n"
        f"{folder}/one.jpg,{folder}/two.jpg,8,0\n{folder}/one.jpg,{folder}/two.jpg,8,1\n"
        f"{folder}/two.jpg,{folder}/one.jpg,8,1\n",
        encoding="utf-8",
    )
    return root


class TestPascal:
    def test_points_keep_their_row_as_id(self, tmp_path: Path) -> None:
        data_set = load("pf-pascal", pascal(tmp_path), "test")
        (pair,) = data_set.pairs
        assert pair.category == "cat"
        assert pair.common_ids == (0, 2)
        assert pair.source.keypoints.at([0, 2, 3]).tolist() == [[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]]
        assert pair.target.box == (1.0, 2.0, 30.0, 40.0)
        assert pair.target.size == (60, 40)
        assert data_set.threshold_base == "image"
        assert len(data_set.schema(pair)) == 4

    def test_training_pairs_count_once_mirrored_or_not(self, tmp_path: Path) -> None:
        data_set = load("pf-pascal", pascal(tmp_path), "train")
        assert data_set.split == "trn"
        assert [pair.id for pair in data_set.pairs] == ["cat/one-two", "cat/two-one"]
        assert any("1 rows repeat a pair" in note for note in data_set.notes)

    def test_points_of_the_list_where_there_are_no_mat_files(self, tmp_path: Path) -> None:
        root = pascal(tmp_path)
        (root / "Annotations/cat/two.mat").unlink()
        data_set = load("pf-pascal", root, "test")
        (pair,) = data_set.pairs
        assert pair.source.keypoints.xy.tolist() == [[1.0, 2.0], [5.0, 6.0]]
        assert pair.target.keypoints.xy.tolist() == [[11.0, 12.0], [15.0, 16.0]]
        assert pair.common_ids == (0, 1)
        assert any("ids count within the pair" in note for note in data_set.notes)
        with pytest.raises(
            InputError, match=r"one\.mat: no such file, and .*trn_pairs\.csv, line 2 gives no points"
        ):
            load("pf-pascal", root, "trn")

    @pytest.mark.parametrize("pad", ["-1", "0", "nan", ""])
    def test_padding_of_the_list_is_absent(self, tmp_path: Path, pad: str) -> None:
        root = pascal(tmp_path)
        (root / "Annotations/cat/two.mat").unlink()
        text = (root / "test_pairs.csv").read_text(encoding="utf-8")
        padded = text.replace("1;5,2;6,11;15,12;16", f"1;5;{pad},2;6;{pad},11;15;{pad},12;16;{pad}")
        (root / "test_pairs.csv").write_text(padded, encoding="utf-8")
        data_set = load("pf-pascal", root, "test")
        assert data_set.pairs[0].common_ids == (0, 1)
        assert any(note.startswith("2 points of -1 -1, 0 0, NaN") for note in data_set.notes)

    def test_an_open_quotation_mark(self, tmp_path: Path) -> None:
        root = pascal(tmp_path)
        with (root / "test_pairs.csv").open("a", encoding="utf-8") as file:
            file.write('"one.jpg,two.jpg,8\n' + "x" * 200_000)
        with pytest.raises(InputError, match=r"test_pairs\.csv, line \d: 1 columns; expected"):
            load("pf-pascal", root, "test")

    def test_a_list_without_a_header_and_one_in_another_order(self, tmp_path: Path) -> None:
        root = pascal(tmp_path)
        (root / "Annotations/cat/two.mat").unlink()
        header, row = (root / "test_pairs.csv").read_text(encoding="utf-8").splitlines()
        (root / "test_pairs.csv").write_text(row, encoding="utf-8")
        (pair,) = load("pf-pascal", root, "test").pairs
        assert pair.target.keypoints.xy.tolist() == [[11.0, 12.0], [15.0, 16.0]]
        lines = [",".join(each.split(",")[::-1]) for each in (header, row)]
        (root / "test_pairs.csv").write_text("\n".join(lines), encoding="utf-8")
        (same,) = load("pf-pascal", root, "test").pairs
        assert same.target.keypoints.xy.tolist() == pair.target.keypoints.xy.tolist()
        assert same.id == pair.id == "cat/one-two"

    def test_a_field_may_be_long(self, tmp_path: Path) -> None:
        root = pascal(tmp_path)
        (root / "Annotations/cat/two.mat").unlink()
        text = (root / "test_pairs.csv").read_text(encoding="utf-8")
        padded = text.replace("11;15,12;16", f"11;{'0' * 140_000}15,12;16")
        (root / "test_pairs.csv").write_text(padded, encoding="utf-8")
        (pair,) = load("pf-pascal", root, "test").pairs
        assert pair.target.keypoints.xy.tolist() == [[11.0, 12.0], [15.0, 16.0]]

    def test_class_by_name(self, tmp_path: Path) -> None:
        root = pascal(tmp_path)
        text = (root / "test_pairs.csv").read_text(encoding="utf-8")
        (root / "test_pairs.csv").write_text(text.replace(",8,", ",cat,"), encoding="utf-8")
        assert load("pf-pascal", root, "test").categories == ("cat",)
        (root / "test_pairs.csv").write_text(text.replace(",8,", ",21,"), encoding="utf-8")
        with pytest.raises(InputError, match="line 2: class '21' is neither"):
            load("pf-pascal", root, "test")
        (root / "test_pairs.csv").write_text(text.replace(",8,", ",8.7,"), encoding="utf-8")
        with pytest.raises(InputError, match=r"line 2: class '8\.7' is neither"):
            load("pf-pascal", root, "test")

    @pytest.mark.parametrize("box", [np.zeros((0, 4)), np.zeros((0, 0))])
    def test_an_empty_box_is_named(self, tmp_path: Path, box: np.ndarray) -> None:
        root = pascal(tmp_path)
        savemat(root / "Annotations/cat/one.mat", {"kps": np.array([[1.0, 2.0]]), "bbox": box})
        with pytest.raises(InputError, match=r"one\.mat: 'bbox' has shape \(0, \d\); expected 1 rows of 4"):
            load("pf-pascal", root, "test")

    def test_bad_input(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no folder 'JPEGImages' in it"):
            load("pf-pascal", tmp_path, "test")
        root = pascal(tmp_path)
        with pytest.raises(InputError, match=r"no list of pairs 'val_pairs\.csv'"):
            load("pf-pascal", root, "val")
        (root / "Annotations/cat/one.mat").write_bytes(b"nothing")
        with pytest.raises(InputError, match=r"one\.mat: damaged"):
            load("pf-pascal", root, "test")
        (root / "Annotations/cat/one.mat").unlink()
        text = (root / "test_pairs.csv").read_text(encoding="utf-8")
        (root / "test_pairs.csv").write_text(text.replace("1;5,2;6", "1;5,2"), encoding="utf-8")
        with pytest.raises(InputError, match=r"line 2: \[2, 1, 2, 2\] numbers"):
            load("pf-pascal", root, "test")
        header, row = text.splitlines()
        (root / "test_pairs.csv").write_text(f"{header}\n\n\n{row.replace('1;5', 'a;5')}", encoding="utf-8")
        with pytest.raises(
            InputError, match=r"test_pairs\.csv, line 4: a coordinate is 'a'; expected a number"
        ):
            load("pf-pascal", root, "test")
        (root / "JPEGImages/one.jpg").unlink()
        (root / "test_pairs.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"one\.jpg: no such file"):
            load("pf-pascal", root, "test")
