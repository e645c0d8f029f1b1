"""One test a rule of the AP-10K benchmark, then the builder and the loader as wholes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from geoaware.data import load
from geoaware.data.ap10k_pairs import Benchmark, Rules, build, merge, read_exclusions, select
from geoaware.data.coco import read_coco
from geoaware.data.dataset import in_common
from geoaware.runs.errors import InputError
from tests.data.ap10k_files import FAMILIES, SPECIES, annotation, full_size, write_files
from tests.shared_data import shared

Pairs = list[dict[str, str]]


def built(root: Path, annotations: list[dict[str, Any]], **options: Any) -> Benchmark:
    return build(write_files(root, annotations), **options)


def pairs_of(benchmark: Benchmark, name: str, split: str) -> Pairs:
    lines = (benchmark.folder / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def images_of(benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    return json.loads((benchmark.folder / "keypoints.json").read_text(encoding="utf-8"))["pictures"]


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def species(name: str, count: int, first: int = 1, **options: Any) -> list[dict[str, Any]]:
    return [annotation(first + place, name, **options) for place in range(count)]


def test_the_three_files_of_split_1_are_merged(tmp_path: Path) -> None:
    benchmark = built(tmp_path, species("cat", 9))
    assert set(images_of(benchmark)) == {f"{each:012d}" for each in range(1, 10)}
    (tmp_path / "annotations/ap10k-val-split1.json").unlink()
    with pytest.raises(InputError, match=r"ap10k-val-split1\.json: no such file"):
        build(tmp_path)


def test_an_entry_of_two_files_counts_once_and_files_must_agree(tmp_path: Path) -> None:
    write_files(tmp_path, species("cat", 9))
    folder = tmp_path / "annotations"
    file = folder / "ap10k-train-split1.json"
    benchmark = build(tmp_path, tmp_path / "out", [file, folder / "ap10k-val-split1.json", file])
    assert benchmark.manifest["images"]["several instances"] == 0
    text = file.read_text(encoding="utf-8")
    (folder / "other.json").write_text(text.replace('"width": 100', '"width": 101'), encoding="utf-8")
    with pytest.raises(InputError, match=r"image \d+ differs from the one of that id in another file"):
        build(tmp_path, tmp_path / "out", [file, folder / "other.json"])


def test_images_with_several_instances_are_dropped(tmp_path: Path) -> None:
    twice = [annotation(3, "cat", annotation_id=100), annotation(4, "dog", annotation_id=101)]
    crowd = {**annotation(5, "cat", annotation_id=102), "iscrowd": 1}
    benchmark = built(tmp_path, [*species("cat", 9), *twice, crowd])
    assert {int(name) for name in images_of(benchmark)} == {1, 2, 6, 7, 8, 9}
    assert benchmark.manifest["images"]["several instances"] == 3


def test_images_on_the_exclusion_list_are_dropped(tmp_path: Path) -> None:
    listed = tmp_path / "several.txt"
    listed.write_text("# seen by eye\n3\n000000000005.jpg  # two cats\n\n000000000007\n", encoding="utf-8")
    benchmark = built(tmp_path, species("cat", 9), exclude=listed)
    assert {int(name) for name in images_of(benchmark)} == {1, 2, 4, 6, 8, 9}
    assert benchmark.manifest["images"]["excluded by the list"] == 3
    assert benchmark.manifest["excluded_images"] == [3, 5, 7]
    listed.write_text("# none\n\n12\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"several\.txt, line 3: no image '12' in the annotations"):
        build(tmp_path, exclude=listed)
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        build(tmp_path, exclude=tmp_path / "none.txt")


def test_an_image_under_two_ids_counts_once_and_is_named(tmp_path: Path) -> None:
    root = write_files(tmp_path, [*species("cat", 9), annotation(10, "cat", annotation_id=77)])
    path = root / "annotations/ap10k-val-split1.json"
    # Ids 1, 4, 7 and 10 lie in this file.
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("000000000010.jpg", "000000000004.jpg"), encoding="utf-8")
    benchmark = build(root)
    assert {int(name) for name in images_of(benchmark)} == set(range(1, 10))
    assert benchmark.manifest["images"]["several instances"] == 0
    said = "left out: 1 annotations that stand there twice (annotation 77 of 000000000004.jpg)"
    assert said in benchmark.warnings
    # Another animal under the second id is a second instance.
    content = json.loads(path.read_text(encoding="utf-8"))
    for each in content["annotations"]:
        each["bbox"] = [1, 1, 9, 9] if each["id"] == 77 else each["bbox"]
    path.write_text(json.dumps(content), encoding="utf-8")
    benchmark = build(root)
    assert {int(name) for name in images_of(benchmark)} == {1, 2, 3, 5, 6, 7, 8, 9}
    assert benchmark.manifest["images"]["several instances"] == 1


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("data\\000000000003.jpg", "folders of another place"),
        ("C:/ap-10k/data/000000000003.JPG", "folders of another place and capitals"),
    ],
)
def test_the_exclusion_list_finds_images_as_other_lists_do(tmp_path: Path, name: str, rule: str) -> None:
    listed = tmp_path / "several.txt"
    listed.write_text(name, encoding="utf-8")
    benchmark = built(tmp_path, species("cat", 9), exclude=listed)
    assert benchmark.manifest["excluded_images"] == [3]
    said = f"names spelled in another way ({rule}): 1, such as {name!r} is '000000000003.jpg'"
    assert said in benchmark.warnings


def test_a_name_of_the_exclusion_list_that_can_be_two_images(tmp_path: Path) -> None:
    root = write_files(tmp_path, species("cat", 9))
    for path in (root / "annotations").iterdir():
        text = path.read_text(encoding="utf-8").replace("000000000003.jpg", "5.jpg")
        path.write_text(text, encoding="utf-8")
    (tmp_path / "list").write_text("5", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: '5' can be image 3 or 5; write image ids or file names"):
        build(root, exclude=tmp_path / "list")
    (tmp_path / "list").write_text("5.jpg", encoding="utf-8")
    assert build(root, exclude=tmp_path / "list").manifest["excluded_images"] == [3]


def test_images_with_fewer_than_3_visible_keypoints_are_dropped(tmp_path: Path) -> None:
    few = [annotation(10, "cat", [0, 1]), annotation(11, "cat", [0, 1, 2]), annotation(12, "cat", flag=1)]
    outside = annotation(13, "cat", [0, 1, 2])
    outside["keypoints"][0] = 101
    benchmark = built(tmp_path, [*species("cat", 9), *few, outside])
    assert {int(name) for name in images_of(benchmark)} == {*range(1, 10), 11}
    assert benchmark.manifest["images"]["too few visible keypoints"] == 3
    assert benchmark.manifest["keypoints"] == {
        "hidden, not counted": 17,
        "outside their picture, not counted": 1,
    }


def test_last_30_by_image_id_are_test_the_20_before_them_validation(tmp_path: Path) -> None:
    benchmark = built(tmp_path, species("cat", 57, first=100)[::-1])
    members: dict[str, set[int]] = defaultdict(set)
    for split in ("trn", "val", "test"):
        for pair in pairs_of(benchmark, "intra-species", split):
            members[split] |= {int(pair["source"]), int(pair["target"])}
    assert members == {"trn": set(range(100, 107)), "val": set(range(107, 127)), "test": set(range(127, 157))}
    entry = {"family": "Felidae", "trn": 7, "val": 20, "test": 30}
    assert benchmark.manifest["species"] == {"cat": entry}
    assert benchmark.manifest["held_out"] == []


def test_species_with_fewer_than_50_images_are_held_out(tmp_path: Path) -> None:
    made = [*species("king cheetah", 49), *species("cat", 50, first=100), *species("dog", 12, first=200)]
    benchmark = built(tmp_path, made)
    assert benchmark.manifest["held_out"] == ["dog", "king cheetah"]
    counts = {
        name: (each["trn"], each["val"], each["test"]) for name, each in benchmark.manifest["species"].items()
    }
    assert counts == {"king cheetah": (0, 19, 30), "cat": (0, 20, 30), "dog": (0, 0, 12)}
    assert pairs_of(benchmark, "intra-species", "trn") == []


def test_intra_species_all_combinations_for_test_and_validation(tmp_path: Path) -> None:
    benchmark = built(tmp_path, [*species("cat", 50), *species("dog", 52, first=100)])
    for split, each in (("val", 20), ("test", 30)):
        found = pairs_of(benchmark, "intra-species", split)
        assert Counter(pair["category"] for pair in found) == dict.fromkeys(
            ("cat", "dog"), each * (each - 1) // 2
        )
        assert len({frozenset((pair["source"], pair["target"])) for pair in found}) == len(found)
        assert all(pair["source"] < pair["target"] for pair in found)
    assert len(pairs_of(benchmark, "intra-species", "trn")) == 1


def test_training_at_most_50_times_the_number_of_images(tmp_path: Path) -> None:
    # 110 training images: 5,995 combinations, at most 5,500; 90: 4,005 combinations, fewer than 4,500.
    benchmark = built(tmp_path, [*species("cat", 160), *species("dog", 140, first=1000)])
    found = pairs_of(benchmark, "intra-species", "trn")
    assert Counter(pair["category"] for pair in found) == {"cat": 5500, "dog": 4005}
    assert len({pair["id"] for pair in found}) == len(found)


def test_training_pairs_are_drawn_before_they_are_filtered(tmp_path: Path) -> None:
    # Odd and even images share 2 keypoints, so about half of the 5,500 drawn pairs fall away.
    cats = [annotation(each, "cat", [0, 1, 2 + each % 2, 4 + each % 2]) for each in range(1, 161)]
    found = pairs_of(built(tmp_path, cats), "intra-species", "trn")
    assert 2400 < len(found) < 2900
    assert all(int(pair["source"]) % 2 == int(pair["target"]) % 2 for pair in found)


def test_pairs_have_at_least_3_keypoints_visible_in_both(tmp_path: Path) -> None:
    made = []
    for place, name in enumerate(("cat", "lion", "dog")):
        for each in range(1, 51):
            visible = [0, 1, 2, 3] if each % 2 else [1, 2, 3 + each % 4, 9]
            made.append(annotation(1000 * place + each, name, visible))
    benchmark = built(tmp_path, made)
    images = images_of(benchmark)
    seen = {name: {i for i, point in enumerate(each["points"]) if point} for name, each in images.items()}
    for name, splits in benchmark.manifest["pairs"].items():
        for split in splits:
            found = pairs_of(benchmark, name, split)
            assert all(len(seen[pair["source"]] & seen[pair["target"]]) >= 3 for pair in found)
    expected = {
        (a, b)
        for a, b in combinations(sorted(name for name in images if int(name) in range(21, 51)), 2)
        if len(seen[a] & seen[b]) >= 3
    }
    found = pairs_of(benchmark, "intra-species", "test")
    assert {(pair["source"], pair["target"]) for pair in found if pair["category"] == "cat"} == expected


def test_cross_species_400_and_900_pairs_a_family_of_several_species(tmp_path: Path) -> None:
    made = [*species("cat", 50), *species("lion", 50, first=100), *species("tiger", 50, first=200)]
    made += [
        *species("horse", 50, first=300),
        *species("zebra", 30, first=400),
        *species("pig", 50, first=500),
    ]
    benchmark = built(tmp_path, made)
    images = images_of(benchmark)
    counts = {split: Counter(pair["category"] for pair in pairs_of(benchmark, "cross-species", split))
              for split in ("val", "test")}  # fmt: skip
    # Zebras have no validation images here, pigs are alone in their family.
    assert counts == {"val": {"Felidae": 400}, "test": {"Felidae": 900, "Equidae": 900}}
    test = pairs_of(benchmark, "cross-species", "test")
    assert all(images[pair["source"]]["species"] != images[pair["target"]]["species"] for pair in test)
    assert all(
        images[pair[side]]["family"] == pair["category"] for pair in test for side in ("source", "target")
    )
    mixed = {(images[pair["source"]]["species"], images[pair["target"]]["species"]) for pair in test}
    assert mixed == {("cat", "lion"), ("cat", "tiger"), ("lion", "tiger"), ("horse", "zebra")}


def test_cross_species_takes_what_there_is_where_too_few_have_3_keypoints_in_common(tmp_path: Path) -> None:
    horses = [annotation(each, "horse", [0, 1, 2] if each % 10 else [3, 4, 5]) for each in range(1, 51)]
    zebras = [annotation(each, "zebra", [0, 1, 2]) for each in range(101, 151)]
    found = pairs_of(built(tmp_path, horses + zebras), "cross-species", "test")
    assert len(found) == 27 * 30  # horses 21 … 50 without 30, 40, 50


def test_cross_family_20_and_30_pairs_for_each_combination(tmp_path: Path) -> None:
    made = [*species("cat", 50), *species("lion", 50, first=100), *species("dog", 50, first=200)]
    made += species("pig", 25, first=300)
    benchmark = built(tmp_path, made)
    counts = {split: Counter(pair["category"] for pair in pairs_of(benchmark, "cross-family", split))
              for split in ("val", "test")}  # fmt: skip
    assert counts["val"] == {"Canidae+Felidae": 20}
    assert counts["test"] == {"Canidae+Felidae": 30, "Canidae+Suidae": 30, "Felidae+Suidae": 30}
    images = images_of(benchmark)
    for pair in pairs_of(benchmark, "cross-family", "test"):
        families = [images[pair[side]]["family"] for side in ("source", "target")]
        assert "+".join(families) == pair["category"]
        assert len({pair["source"], pair["target"]}) == 2


def test_evaluation_pairs_are_of_evaluation_images(tmp_path: Path) -> None:
    benchmark = built(
        tmp_path, [*species("cat", 80), *species("lion", 80, first=100), *species("dog", 80, first=200)]
    )
    for name in ("cross-species", "cross-family"):
        for split, allowed in (("val", range(30, 50)), ("test", range(50, 80))):
            found = pairs_of(benchmark, name, split)
            places = {(int(pair[side]) - 1) % 100 if int(pair[side]) < 100 else int(pair[side]) % 100
                      for pair in found for side in ("source", "target")}  # fmt: skip
            assert places <= set(allowed)
            assert len(places) > 10


def test_the_same_bytes_for_shuffled_input_and_for_any_place(tmp_path: Path) -> None:
    made = [*species("cat", 120), *species("lion", 60, first=200), *species("dog", 70, first=300)]
    first = build(write_files(tmp_path / "a", made))
    second = build(write_files(tmp_path / "elsewhere" / "b", made[::-1], shuffle=5), tmp_path / "out")
    assert everything(first.folder) == everything(second.folder)
    third = build(tmp_path / "a", tmp_path / "other seed", rules=Rules(seed=1))
    assert pairs_of(third, "cross-family", "test") != pairs_of(first, "cross-family", "test")
    assert pairs_of(third, "intra-species", "test") == pairs_of(first, "intra-species", "test")


def test_this_benchmark_is_the_same_for_ever(tmp_path: Path) -> None:
    made = [*species("cat", 160), *species("lion", 60, first=200), *species("dog", 70, first=300)]
    benchmark = built(tmp_path, made)
    text = b"".join(content for _, content in sorted(everything(benchmark.folder).items()))
    # A change here makes published lists of pairs unrepeatable: raise FORMAT and say so in the changelog.
    assert hashlib.sha256(text).hexdigest() == FINGERPRINT


FINGERPRINT = "4cad35f3b20605b097ee860bf31b2b78dc783bed267edce46c5c2257ac30b9cc"


def test_manifest_counts_and_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    benchmark = built(tmp_path, [*species("cat", 60), *species("lion", 60, first=100)])
    manifest = json.loads((benchmark.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == benchmark.manifest
    files = everything(benchmark.folder)
    assert set(files) == {*manifest["files"], "manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    for name, splits in manifest["pairs"].items():
        for split, count in splits.items():
            assert len(pairs_of(benchmark, name, split)) == count
    assert manifest["paper"]["intra-species"] == {"trn": 260950, "val": 8816, "test": 20630}


def test_names_can_be_stored_on_windows(tmp_path: Path) -> None:
    benchmark = built(tmp_path, [*species("king cheetah", 60), *species("cat", 60, first=100)])
    reserved = {
        "con",
        "prn",
        "aux",
        "nul",
        *(f"{port}{each}" for port in ("com", "lpt") for each in range(10)),
    }
    ids = [pair["id"] for pair in pairs_of(benchmark, "cross-species", "test")]
    parts = [part for name in everything(benchmark.folder) for part in name.split("/")]
    for name in [*ids, *images_of(benchmark), *parts]:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-]", name), name
        assert name.split(".")[0].lower() not in reserved
    assert len({name.lower() for name in everything(benchmark.folder)}) == len(everything(benchmark.folder))


def test_nothing_is_written_when_the_input_is_bad(tmp_path: Path) -> None:
    write_files(tmp_path, species("cat", 60))
    out = tmp_path / "out"
    before = everything(build(tmp_path, out).folder)
    file = tmp_path / "annotations/ap10k-test-split1.json"
    text = file.read_text(encoding="utf-8")
    for damaged, message in [
        (text[:-20], "damaged, no valid JSON"),
        (text.replace('"left_eye"', '"eye_left"'), "has not AP-10K's 17 keypoints"),
        (text.replace('"bbox": [5, 6, 50, 60]', '"bbox": [5, 6, -1, 60]', 1), "has no extent"),
    ]:
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            build(tmp_path, out)
        with pytest.raises(InputError, match=message):
            build(tmp_path, tmp_path / "new")
    assert everything(out) == before
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="no such folder; give the folder of AP-10K as root"):
        build(tmp_path / "nowhere")
    write_files(tmp_path, [annotation(1, "cat", [0])])
    with pytest.raises(InputError, match="no image passes the rules"):
        build(tmp_path, out)


def test_interrupted_writing_leaves_no_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, species("cat", 60))
    folder = build(tmp_path).folder
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "test" in path.name:
            raise OSError("no space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        build(tmp_path)
    monkeypatch.undo()
    assert not (folder / "manifest.json").exists()
    assert not list(folder.rglob(".*part*"))
    with pytest.raises(InputError, match="build the benchmark first: geoaware data build-ap10k"):
        load("ap10k", tmp_path, "test")


def test_real_sample_says_what_is_too_few(tmp_path: Path) -> None:
    root = shared("ap10k-sample")
    benchmark = build(root, tmp_path, [root / "annotations/test_ap10k.json"])
    assert "2 annotated images, AP-10K has 10015: not the whole data set" in benchmark.warnings
    assert "intra-species test: no pairs, too few images" in benchmark.warnings
    assert benchmark.manifest["held_out"] == ["antelope", "jaguar"]
    data_set = load("ap10k", root, "test", benchmark="cross-family", built=str(tmp_path))
    (pair,) = data_set.pairs
    assert (pair.source.category, pair.target.category) == ("antelope", "jaguar")
    raw = json.loads((root / "annotations/test_ap10k.json").read_text(encoding="utf-8"))
    for side, entry in ((pair.source, raw["annotations"][1]), (pair.target, raw["annotations"][0])):
        assert int(side.id) == entry["image_id"]
        x, y, width, height = entry["bbox"]
        assert side.box == (x, y, x + width, y + height)
        assert side.keypoints.visible.tolist() == [flag == 2 for flag in entry["keypoints"][2::3]]
        for each in side.keypoints.visible_ids:
            assert side.keypoints.at([each]).tolist() == [entry["keypoints"][3 * each : 3 * each + 2]]
        with Image.open(side.path) as opened:
            assert opened.size == side.size
    with pytest.raises(InputError, match=r"trn\.jsonl: has no pairs, AP-10K's annotations were too few"):
        load("ap10k", root, "trn", built=str(tmp_path))


def with_images(root: Path, annotations: list[dict[str, Any]]) -> Path:
    write_files(root, annotations)
    (root / "data").mkdir()
    for each in annotations:
        Image.new("RGB", (100, 80)).save(root / "data" / f"{each['image_id']:012d}.jpg")
    build(root)
    return root


def test_loading(tmp_path: Path) -> None:
    root = with_images(tmp_path, [*species("cat", 52), *species("dog", 50, first=100)])
    data_set = load("ap10k", root, "train")
    (pair,) = data_set.pairs
    assert (pair.id, pair.category, data_set.split) == ("000000000001-000000000002", "cat", "trn")
    assert pair.source.keypoints.at([0, 16]).tolist() == [[10.0, 20.0], [26.0, 36.0]]
    assert pair.source.box == (5.0, 6.0, 55.0, 66.0)
    assert pair.source.attributes == {"species": "cat", "family": "Felidae"}
    assert data_set.schema(pair).subgroups["paw"] == (7, 10, 13, 16)
    assert len(load("ap10k", root, "val")) == 2 * 190
    across = load("ap10k", root, "test", benchmark="cross-family")
    assert (len(across), across.categories) == (30, ("Canidae+Felidae",))
    assert across.schema(across.pairs[0]).names[0] == "left_eye"


def test_loading_bad_input(tmp_path: Path) -> None:
    root = with_images(tmp_path, species("cat", 50))
    with pytest.raises(
        InputError, match="no benchmark 'cross'; choose intra-species, cross-species, cross-family"
    ):
        load("ap10k", root, "test", benchmark="cross")
    with pytest.raises(InputError, match="AP-10K cross-family has no split 'trn'; choose val, test"):
        load("ap10k", root, "trn", benchmark="cross-family")
    (root / "data/000000000030.jpg").unlink()
    with pytest.raises(InputError, match=r"000000000030\.jpg: no such image"):
        load("ap10k", root, "test")
    listed = root / "correspondence/intra-species/test.jsonl"
    listed.write_bytes(listed.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"test\.jsonl: is not as the manifest says"):
        load("ap10k", root, "test")
    listed.unlink()
    with pytest.raises(InputError, match=r"test\.jsonl: no such file; .*build-ap10k again"):
        load("ap10k", root, "test")
    manifest = root / "correspondence/manifest.json"
    manifest.write_text('{"format": 0}', encoding="utf-8")
    with pytest.raises(InputError, match="is not of this version's builder"):
        load("ap10k", root, "test")


def test_selection_by_itself(tmp_path: Path) -> None:
    file = read_coco(write_files(tmp_path, species("cat", 3)) / "annotations/ap10k-train-split1.json")
    (animal,), counts = select(merge([file]), frozenset(), Rules())
    assert (animal.id, animal.category, animal.keypoints.bits) == ("000000000003", "cat", 2**17 - 1)
    assert (counts["images"]["annotated"], counts["images"]["used"]) == (1, 1)
    points = animal.keypoints
    three = replace(points, visible=torch.tensor([each in (0, 1, 3) for each in points.ids]))
    assert in_common(animal, replace(animal, keypoints=three)) == 3
    (tmp_path / "list").write_text("8", encoding="utf-8")
    merged = merge([file])
    with pytest.raises(InputError, match="no image '8'"):
        read_exclusions(tmp_path / "list", merged)


def test_made_up_species_are_the_real_ones() -> None:
    path = shared("ap10k-sample") / "annotations/test_ap10k.json"
    raw = json.loads(path.read_text(encoding="utf-8"))["categories"]
    assert {each["name"]: (each["id"], each["supercategory"]) for each in raw} == SPECIES
    assert sum(len(names) > 1 for names in FAMILIES.values()) == 11


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    made = full_size()
    assert len({each["image_id"] for each in made}) == 10_015
    benchmark = built(tmp_path, made)
    pairs = benchmark.manifest["pairs"]
    assert benchmark.manifest["held_out"] == ["argali sheep", "black bear", "king cheetah"]
    assert pairs["cross-family"] == {"val": 20 * 210, "test": 30 * 210}  # 21 families have images
    assert 200_000 < pairs["intra-species"]["trn"] < 400_000
    assert pairs["intra-species"]["val"] <= 50 * 190
    assert pairs["cross-species"]["test"] <= 11 * 900
