from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from geoaware.evaluation.predict import (
    PredictSettings,
    _Job,
    _size,
    choose_pairs,
    matching_settings,
    predict,
    scorable,
)
from geoaware.evaluation.protocols import get_protocol
from geoaware.matcher import Matcher
from geoaware.method.alignment import PoseRule, instance_matching_distance, match_posed, mirror_points
from geoaware.method.geometry import pose_image, pose_points
from geoaware.method.matching import MatchSettings, match
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import Keypoints, Pair
from geoaware.presets import defaults_of
from geoaware.result import mask_on_canvas
from geoaware.runs.errors import InputError
from geoaware.runs.work import Local
from tests.evaluation.tiny import SCHEMA, Sided, tiny_dataset, tiny_matcher
from tests.features.test_refined import random_network


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The file of an uninterrupted run."""
    return predict(
        dataset, tiny_matcher(), tmp_path_factory.mktemp("whole") / "p.jsonl", PredictSettings(batch=2)
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_records_say_what_the_pairs_say(dataset, whole):
    header, *records = lines(whole)
    assert header["protocol"] == "paper"
    assert header["pairs"] == len(dataset.pairs) == len(records)
    assert header["extractor"] == "sided()"
    assert header["settings"]["matching"]["window"] == 5
    assert header["settings"]["pose"] == "flip"
    assert header["schemas"]["cat"]["flip_pairs"] == [[0, 1], [3, 4]]
    assert set(header["versions"]) == {"geoaware", "torch", "pillow"}
    assert len(header["hashes"]["pairs"]) == len(header["hashes"]["weights"]) == 64
    for pair, record in zip(dataset.pairs, records, strict=True):
        ids = list(pair.common_ids)
        assert record["pair"] == pair.id
        assert (record["source"], record["target"]) == (pair.source.id, pair.target.id)
        assert record["keypoint_ids"] == ids
        assert record["truth"] == pair.target.keypoints.at(ids).tolist()
        assert len(record["predicted"]) == len(ids)
        x1, y1, x2, y2 = pair.target.box
        assert record["size"] == max(x2 - x1, y2 - y1)
        both = {0, 1} <= set(pair.target.keypoints.visible_ids)
        assert record["geometry_aware"] == [each in (0, 1) and both for each in ids]
        assert [int(each) for each in record["target_keypoints"]] == list(pair.target.keypoints.visible_ids)
        assert record["azimuth_difference"] == pair.azimuth_difference
        assert record["pose"] in ("identity", "flip")


def test_predictions_are_those_of_the_matcher(dataset, whole):
    matcher = tiny_matcher()
    for pair, record in list(zip(dataset.pairs, lines(whole)[1:], strict=True))[:8]:
        source, target = (matcher.encode(side.path) for side in (pair.source, pair.target))
        aligned = matcher.align(source, target, "flip")
        assert record["pose"] == aligned.pose
        keypoints = pair.source.keypoints
        # All five keypoints, hidden ones marked: the contract of match_posed, written out.
        found = match_posed(
            aligned.maps,
            target.maps["identity"],
            keypoints.xy,
            aligned.pose,
            matcher.settings,
            mirror_points(keypoints.xy, pair.source.size, SCHEMA.partners, keypoints.visible),
        )
        expected = found.points[list(pair.common_ids)]
        np.testing.assert_allclose(record["predicted"], expected, atol=1e-6)


def mirrored_pair(dataset, visible_in_target) -> Pair:
    """An image and its mirror image; the source shows both ears, the nose and the left paw."""
    source = dataset.pairs[0].source
    seen = torch.tensor([True, True, True, True, False])
    xy = source.keypoints.xy
    points = Keypoints(source.keypoints.ids, xy, seen)
    path = source.path.with_name("mirrored.png")
    pose_image(Image.open(source.path), "flip").save(path)
    there = Keypoints(source.keypoints.ids, pose_points(xy, source.size, "flip"), visible_in_target)
    return Pair(
        "m",
        "cat",
        replace(source, keypoints=points),
        replace(source, id="mirrored", path=path, keypoints=there),
    )


def test_mirrored_source_is_read_at_the_partner_even_if_that_is_not_evaluated(dataset, tmp_path):
    # The right ear is annotated in the source alone: not evaluated, but the left ear is read at its place.
    pair = mirrored_pair(dataset, torch.tensor([True, False, True, True, True]))
    matcher = tiny_matcher(mode="argmax")
    only = replace(dataset, pairs=(pair,))
    record = lines(predict(only, matcher, tmp_path / "p.jsonl"))[1]
    assert record["pose"] == "flip"
    assert record["keypoint_ids"] == [0, 2, 3]
    size, xy = pair.source.size, pair.source.keypoints.xy
    mirrored = pose_points(xy, size, "flip")
    ear, nose, paw = torch.tensor(record["predicted"], dtype=torch.float64)
    # The target is the mirrored source, so each query is found in the cell where it was read.
    cell = max(size) / 13
    assert (ear - mirrored[1]).abs().max() <= cell
    assert (nose - mirrored[2]).abs().max() <= cell
    # The right paw is not annotated: the left one keeps its straight match.
    straight = match(
        matcher.encode(pair.source.path).maps["identity"],
        matcher.encode(pair.target.path).maps["identity"],
        xy[3:4],
        matcher.settings,
    )
    assert paw.tolist() == pytest.approx(straight.points[0].tolist())


def test_without_labels_partners_come_from_the_features(dataset, tmp_path):
    pair = mirrored_pair(dataset, torch.tensor([True, True, True, True, True]))
    only = replace(dataset, pairs=(pair,))
    labelled = lines(predict(only, tiny_matcher(), tmp_path / "a.jsonl"))[1]
    free = lines(predict(only, tiny_matcher(), tmp_path / "b.jsonl", PredictSettings(labels=False)))[1]
    matcher = tiny_matcher()
    source, target = (matcher.encode(side.path) for side in (pair.source, pair.target))
    maps = matcher.align(source, target, "flip").maps
    points = pair.source.keypoints.at(pair.common_ids)
    expected = match_posed(maps, target.maps["identity"], points, "flip", matcher.settings).points
    np.testing.assert_allclose(free["predicted"], expected, atol=1e-9)
    assert labelled["predicted"] != free["predicted"]


def test_released_mirrors_at_the_edge(dataset, tmp_path):
    pair = mirrored_pair(dataset, torch.tensor([True, True, True, True, True]))
    matcher = tiny_matcher(interpolate=True)
    only = replace(dataset, pairs=(pair,))
    record = lines(predict(only, matcher, tmp_path / "p.jsonl", PredictSettings("released")))[1]
    encoded = matcher.encode(pair.source.path)
    maps = matcher.align(encoded, encoded, "flip").maps
    target = matcher.encode(pair.target.path).maps["identity"]
    xy, width = pair.source.keypoints.xy, pair.source.size[0]
    queries = torch.stack([width - xy[[1, 0, 2], 0], xy[[1, 0, 2], 1]], dim=1)
    expected = match(maps["flip"], target, queries, matcher.settings).points
    np.testing.assert_allclose(record["predicted"][:3], expected, atol=1e-9)
    inside = lines(predict(only, matcher, tmp_path / "q.jsonl", PredictSettings("paper")))[1]
    assert inside["pose"] == record["pose"] == "flip"
    assert inside["predicted"] != record["predicted"]


def test_released_partners_must_be_visible_in_both(dataset, tmp_path):
    # The right ear, the left one's partner, is annotated in the source alone.
    pair = mirrored_pair(dataset, torch.tensor([True, False, True, True, True]))
    matcher, only = tiny_matcher(mode="argmax"), replace(dataset, pairs=(pair,))
    paper, released = (
        lines(predict(only, matcher, tmp_path / f"{each}.jsonl", PredictSettings(each)))[1]
        for each in ("paper", "released")
    )
    assert paper["pose"] == released["pose"] == "flip"
    assert paper["keypoint_ids"] == released["keypoint_ids"] == [0, 2, 3]
    source, target = (matcher.encode(side.path) for side in (pair.source, pair.target))
    straight = match(
        source.maps["identity"], target.maps["identity"], pair.source.keypoints.xy[:1], matcher.settings
    )
    assert released["predicted"][0] == pytest.approx(straight.points[0].tolist())
    assert paper["predicted"][0] != released["predicted"][0]
    assert paper["predicted"][1:] == released["predicted"][1:]


@pytest.mark.parametrize("rule", [PoseRule(), PoseRule("imd", 0.01)])
def test_released_pose_rule(dataset, tmp_path, rule):
    matcher = Matcher(Sided(), MatchSettings(window=5), "flip", rule)
    header, *records = lines(predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings("released")))
    name = f"{rule.distance}+padding+released"
    assert header["settings"]["pose_rule"] == {"distance": name, "margin": rule.margin}
    assert matcher.pose_rule == rule, "the matcher that was given stays as it is"
    released = Matcher(Sided(), MatchSettings(window=5), "flip", PoseRule(name, rule.margin))
    for pair, record in zip(dataset.pairs, records, strict=True):
        source, target = (matcher.encode(side.path) for side in (pair.source, pair.target))
        assert record["pose"] == released.align(source, target, "flip").pose
    plain, *others = lines(predict(dataset, matcher, tmp_path / "q.jsonl"))
    assert plain["settings"]["pose_rule"] == {"distance": rule.distance, "margin": rule.margin}
    differ = [a["pair"] for a, b in zip(records, others, strict=True) if a["pose"] != b["pose"]]
    assert differ, "the padding decides for none of these pairs"


def test_released_masks_are_of_both_images(dataset, tmp_path, monkeypatch):
    pair = mirrored_pair(dataset, torch.tensor([True] * 5))
    sides = []
    for name, side in (("source", pair.source), ("target", pair.target)):
        mask = np.zeros(side.size[::-1], dtype=np.uint8)
        mask[20:60, 30:70] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        sides.append(replace(side, mask_path=tmp_path / f"{name}.png"))
    source, target = sides
    seen = []

    class Watching(Matcher):
        def align(self, source, target, setting):
            found = super().align(source, target, setting)
            seen.append((source.mask, target.mask, found.distances))
            return found

    for protocol, given in (("paper", (source, pair.target)), ("released", (source, target))):
        only = replace(dataset, pairs=(replace(pair, source=given[0], target=given[1]),))
        matcher = Watching(Sided(), MatchSettings(window=5), "flip")
        predict(only, matcher, tmp_path / f"{protocol}.jsonl", PredictSettings(protocol, masks=True))
    (here, nothing, paper), (_, there, released) = seen
    assert here.sum() == there.sum() == 1600
    assert nothing is None
    maps = matcher.encode(source.path).maps["identity"], matcher.encode(target.path).maps["identity"]
    laid = [mask_on_canvas(here, "identity", each.canvas) for each in maps]
    features = [each.data for each in maps]
    assert paper["identity"] == instance_matching_distance(*features, laid[0])
    assert released["identity"] == instance_matching_distance(*features, *laid, released=True)
    without = replace(dataset, pairs=(replace(pair, source=source),))
    with pytest.raises(InputError, match="mirrored: the data set has no mask of this object"):
        predict(without, matcher, tmp_path / "q.jsonl", PredictSettings("released", masks=True))


def test_masks_choose_the_pose(dataset, tmp_path):
    with pytest.raises(InputError, match="has no mask of this object; predict without masks"):
        predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings(masks=True))
    pair = mirrored_pair(dataset, torch.tensor([True] * 5))
    mask = tmp_path / "mask.png"
    Image.new("L", pair.source.size, 255).save(mask)
    only = replace(dataset, pairs=(replace(pair, source=replace(pair.source, mask_path=mask)),))
    header, record = lines(predict(only, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings(masks=True)))
    assert header["settings"]["masks"] is True
    assert record["pose"] == "flip"
    Image.new("L", (9, 7), 255).save(mask)
    with pytest.raises(
        InputError, match=r"mask\.png: mask of 9x7 pixels, image of .*; give one of the image's size"
    ):
        predict(only, tiny_matcher(), tmp_path / "q.jsonl", PredictSettings(masks=True))
    assert not (tmp_path / "q.jsonl").exists()


def test_each_image_and_pose_is_extracted_once(dataset, tmp_path, whole):
    matcher = tiny_matcher()
    path = predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings(batch=2))
    assert matcher.extractor.count == 2 * 6
    assert path.read_bytes() == whole.read_bytes()


def test_a_small_cache_changes_the_work_but_not_the_file(dataset, tmp_path, whole):
    matcher = tiny_matcher()
    path = predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings(batch=2, cache_bytes=1))
    assert matcher.extractor.count > 2 * 6
    assert path.read_bytes() == whole.read_bytes()


def cut_positions(content: bytes) -> list[int]:
    """Inside and at the ends of the header, of a middle line and of the last one."""
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    spots = [
        0,
        5,
        ends[0] - 1,
        ends[0],
        ends[0] + 1,
        ends[7] - 1,
        ends[7],
        ends[7] + 40,
        ends[-1] - 1,
        ends[-1],
    ]
    return sorted(set(spots))


def test_cut_anywhere_it_goes_on_and_ends_in_the_same_bytes(dataset, tmp_path, whole):
    content = whole.read_bytes()
    for place in cut_positions(content):
        path = tmp_path / f"{place}.jsonl"
        part = path.with_name(path.name + ".part")
        part.write_bytes(content[:place])
        matcher, seen = tiny_matcher(), []
        predict(
            dataset,
            matcher,
            path,
            PredictSettings(batch=2),
            progress=lambda what, done, _, seen=seen: seen.append(done),
        )
        assert path.read_bytes() == content
        assert not part.exists()
        assert seen[0] == max(content[:place].count(b"\n") - 1, 0)
        assert seen[-1] == len(dataset.pairs)


@pytest.mark.parametrize("cache_bytes", [1, 1 << 30])
def test_several_processes_write_the_same_bytes(dataset, tmp_path, whole, cache_bytes):
    settings = PredictSettings(batch=2, cache_bytes=cache_bytes)
    path = predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", settings, engine=Local(2))
    assert path.read_bytes() == whole.read_bytes()
    assert [each.name for each in tmp_path.iterdir() if "p.jsonl" in each.name] == ["p.jsonl"]


def test_what_processes_leave_for_each_other_takes_only_its_room(dataset, tmp_path, monkeypatch):
    job = _Job(dataset, tiny_matcher(), PredictSettings(batch=1))
    made = [job._extract(number, {}) for number in range(4)]
    sizes = [_size(each) for each in made]
    job._room = room = max(sizes[a] + sizes[a + 1] for a in range(3))
    folder = tmp_path / "left"
    folder.mkdir()
    for number, each in enumerate(made):
        job._leave(each, folder / f"{number}.pt")
        there = {int(path.stem) for path in folder.glob("*.pt")}
        assert number in there
        assert sum(sizes[each] for each in there) <= room
    assert {2, 3} <= there != {0, 1, 2, 3}
    found = torch.load(folder / "3.pt", weights_only=False)
    for path, encoded in made[3].items():
        assert torch.equal(found[path].maps["identity"].data, encoded.maps["identity"].data)
    job._room = 0
    del job._left
    job._leave(made[0], folder / "0.pt")
    assert not (folder / "0.pt").exists()
    full = OSError(errno.ENOSPC, "no room")
    monkeypatch.setattr(torch, "save", Mock(side_effect=full))
    job._room = room
    job._leave(made[0], folder / "0.pt")  # the others extract it for themselves
    assert not list(folder.glob("0.*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_ten_times_it_loses_nothing_and_ends_in_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "tests.evaluation.tiny", str(tmp_path), "10", "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    counts = [int(each) for each in done.stdout.split()]
    assert len(counts) == 10
    assert counts == sorted(counts)
    assert any(each > 0 for each in counts), "no kill came while pairs were being written"
    killed = (tmp_path / "killed.jsonl").read_bytes()
    whole = predict(tiny_dataset(tmp_path), tiny_matcher(), tmp_path / "w.jsonl", PredictSettings(batch=2))
    assert killed == whole.read_bytes()


def test_a_whole_file_is_left_as_it_is(dataset, tmp_path, whole):
    path = tmp_path / "p.jsonl"
    path.write_bytes(whole.read_bytes())
    matcher = tiny_matcher()
    predict(dataset, matcher, path, PredictSettings(batch=2))
    assert matcher.extractor.count == 0


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.part"])
def test_another_runs_file_is_not_touched(dataset, tmp_path, whole, name):
    (tmp_path / name).write_bytes(whole.read_bytes())
    matcher = tiny_matcher(temperature=0.05)
    with pytest.raises(
        InputError, match=r"belongs to another run \(different: settings.matching\).*or restart to throw"
    ):
        predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings(batch=2))
    assert (tmp_path / name).read_bytes() == whole.read_bytes()
    predict(dataset, matcher, tmp_path / "p.jsonl", PredictSettings(batch=2), restart=True)
    assert lines(tmp_path / "p.jsonl")[0]["settings"]["matching"]["temperature"] == 0.05
    assert not (tmp_path / "p.jsonl.part").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json\n", "exists and was not written by geoaware"),
        (b"no line", "exists and was not written by geoaware"),
        (b'{"a": 1}\n', "exists and was not written by geoaware"),
        (b'{"format": "geoaware predictions"', "exists and is no predictions file"),
        (b"", "exists and is no predictions file"),
        (b'{"format": "geoaware predictions", "a": ' + b"[" * 9000, "exists and is no predictions file"),
    ],
)
def test_other_files_are_not_overwritten(dataset, tmp_path, content, message):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        predict(dataset, tiny_matcher(), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.part"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_restart_throws_away_nothing_of_others(dataset, tmp_path, name, restart):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(InputError, match=f"{name}: exists and was not written by geoaware; choose another"):
        predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", restart=restart)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {name: b"precious"}


def test_a_link_stays_and_what_it_leads_to_is_made_anew(dataset, tmp_path, whole):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_bytes(whole.read_bytes().splitlines(keepends=True)[0])
    predict(dataset, tiny_matcher(), tmp_path / "link.jsonl", PredictSettings(batch=2), restart=True)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "p.jsonl").read_bytes() == whole.read_bytes()


def test_a_second_run_on_the_same_file_is_refused(dataset, tmp_path, whole):
    tried = []

    def second(*_):
        for restart in (False, True):
            with pytest.raises(InputError, match=r"p.jsonl.part: another process is at work on it; wait"):
                predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", restart=restart)
        tried.append(True)

    predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings(batch=2), progress=second)
    assert tried
    assert (tmp_path / "p.jsonl").read_bytes() == whole.read_bytes()


def test_a_finished_file_that_lost_its_end_is_noticed(dataset, tmp_path, whole):
    path = tmp_path / "p.jsonl"
    path.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(InputError, match="is cut off; restart to predict again"):
        predict(dataset, tiny_matcher(), path, PredictSettings(batch=2))


@pytest.mark.parametrize(
    "harm",
    [
        lambda row: row[:-10],
        lambda row: row.replace(b'"predicted":[[', b'"predicted":[[0,0],['),
        lambda row: row.replace(b'"keypoint_ids"', b'"ids"'),
        lambda row: row.replace(b'"pair":"', b'"pair":"of another set '),
        lambda _: b"[" * 100_000,
        lambda _: b"3",
    ],
)
def test_damage_inside_a_part_file_is_noticed(dataset, tmp_path, whole, harm):
    rows = whole.read_bytes().split(b"\n")
    rows[3] = harm(rows[3])
    (tmp_path / "p.jsonl.part").write_bytes(b"\n".join(rows))
    with pytest.raises(InputError, match=r"p.jsonl.part, line 4: is damaged; restart to begin anew"):
        predict(dataset, tiny_matcher(), tmp_path / "p.jsonl", PredictSettings(batch=2))


def test_what_the_protocol_cannot_judge_stops_before_anything_is_written(dataset, tmp_path):
    pair = dataset.pairs[0]
    boxless = replace(dataset, pairs=(replace(pair, target=replace(pair.target, box=None)),))
    with pytest.raises(InputError, match="no object box, from which protocol paper takes its threshold"):
        predict(boxless, tiny_matcher(), tmp_path / "new" / "p.jsonl")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="there are no pairs to predict"):
        predict(replace(dataset, pairs=()), tiny_matcher(), tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="pair ids repeat"):
        predict(replace(dataset, pairs=(pair, pair)), tiny_matcher(), tmp_path / "p.jsonl")


def test_image_of_another_size_than_annotated(dataset, tmp_path):
    pair = dataset.pairs[0]
    wrong = replace(dataset, pairs=(replace(pair, target=replace(pair.target, size=(999, 10))),))
    with pytest.raises(InputError, match="its annotation is for 999x10"):
        predict(wrong, tiny_matcher(), tmp_path / "p.jsonl")


def test_weights_tell_runs_apart():
    changed = Sided()
    torch.nn.init.constant_(changed.scale, 2.0)
    assert Sided().weights_hash() == Sided().weights_hash() != changed.weights_hash()


def test_choice_of_pairs(dataset):
    five, ten = choose_pairs(dataset, 5, seed=3), choose_pairs(dataset, 10, seed=3)
    assert len(five.pairs) == 5
    assert {pair.id for pair in five.pairs} < {pair.id for pair in ten.pairs}
    place = {pair.id: row for row, pair in enumerate(dataset.pairs)}
    assert [place[pair.id] for pair in ten.pairs] == sorted(place[pair.id] for pair in ten.pairs)
    turned = replace(dataset, pairs=dataset.pairs[::-1])
    assert {pair.id for pair in choose_pairs(turned, 5, seed=3).pairs} == {pair.id for pair in five.pairs}
    assert {pair.id for pair in choose_pairs(dataset, 5, seed=4).pairs} != {pair.id for pair in five.pairs}
    assert choose_pairs(dataset, None) is dataset
    assert len(choose_pairs(dataset, 999).pairs) == len(dataset.pairs)
    with pytest.raises(InputError, match="at least 1, got 0"):
        choose_pairs(dataset, 0)


def sided_matcher(network: PostProcessor | None, **options: object) -> Matcher:
    return Matcher(Sided(), MatchSettings(window=5), "flip", post_processor=network, **options)


def test_a_post_processor_is_in_the_header_and_only_then(dataset, tmp_path, whole):
    network = random_network(20, (9,))
    few, how = choose_pairs(dataset, 6), PredictSettings(batch=2)
    plain, with_it = (
        lines(predict(few, matcher, tmp_path / f"{number}.jsonl", how))
        for number, matcher in enumerate((sided_matcher(None), sided_matcher(network, blend=0.4)))
    )
    assert set(plain[0]["hashes"]) == {"pairs", "weights"}
    assert "blend" not in plain[0]["settings"]
    assert with_it[0]["hashes"] == {**plain[0]["hashes"], "post_processor": network.weights_hash()}
    assert with_it[0]["settings"] == {**plain[0]["settings"], "blend": 0.4}
    assert with_it[0]["extractor"] == f"sided() + {network.identity} (blend 0.4)"
    assert {key for key in plain[0] if plain[0][key] != with_it[0][key]} == {
        "extractor",
        "hashes",
        "settings",
    }
    assert [record["predicted"] for record in plain[1:]] != [record["predicted"] for record in with_it[1:]]
    zero = predict(few, sided_matcher(network, blend=0), tmp_path / "zero.jsonl", how)
    assert zero.read_bytes() == (tmp_path / "0.jsonl").read_bytes()


def test_predictions_with_a_post_processor_go_on_and_are_not_mixed(dataset, tmp_path):
    network, few, how = random_network(13, (9,)), choose_pairs(dataset, 6), PredictSettings(batch=2)
    path = predict(few, sided_matcher(network, blend=0.4), tmp_path / "p.jsonl", how)
    content = path.read_bytes()
    part = path.with_name(path.name + ".part")
    part.write_bytes(content[: len(content) * 2 // 3])
    path.unlink()
    predict(few, sided_matcher(network, blend=0.4), path, how)
    assert path.read_bytes() == content
    for matcher, what in (
        (sided_matcher(network, blend=0.5), "extractor, settings.blend"),
        (
            sided_matcher(random_network(12, (9,)), blend=0.4),
            "extractor, hashes.post_processor",
        ),
        (sided_matcher(None), "extractor, settings.blend, hashes.post_processor"),
    ):
        with pytest.raises(InputError, match=re.escape(f"another run (different: {what})")):
            predict(few, matcher, path, how)


def test_predictions_with_a_post_processor_are_those_of_the_matcher(dataset, tmp_path):
    network, few = random_network(20, (9,)), choose_pairs(dataset, 4)
    matcher = sided_matcher(network, blend=0.4)
    # A cache too small for anything: maps are made anew, in batches that never change.
    path = predict(few, matcher, tmp_path / "p.jsonl", PredictSettings(cache_bytes=1))
    for pair, record in zip(few.pairs, lines(path)[1:], strict=True):
        result = matcher.match(pair.source.path, pair.target.path, pair.source.keypoints.xy, pose="off")
        if record["pose"] == "identity":
            found = result.points[list(pair.common_ids)]
            np.testing.assert_allclose(record["predicted"], found, atol=1e-6)
    assert any(record["pose"] == "identity" for record in lines(path)[1:])


def test_matching_follows_the_post_processor():
    name, network = "efficientnet-lite0", random_network(matching={"window": 7, "temperature": 0.05})
    assert matching_settings(name, "paper", post_processor=random_network()).window == 15
    found = matching_settings(name, "paper", post_processor=network)
    assert found == MatchSettings(window=7, temperature=0.05, interpolate=True)
    assert matching_settings(name, "dift", post_processor=network).inside_picture is True
    for_users = matching_settings(name, "paper", "extractor", post_processor=network)
    assert for_users == defaults_of(name, network).match
    assert matching_settings(name, "paper", "paper", post_processor=network) == MatchSettings(window=15)
    assert matching_settings(name, "paper", "auto", {"window": 3}, network).window == 3


def test_matching_follows_the_protocol():
    name = "efficientnet-lite0"
    assert matching_settings(name, "paper").inside_picture is False
    assert matching_settings(name, "released").inside_picture is False
    assert matching_settings(name, "dift").inside_picture is True
    assert matching_settings(name, "paper", "extractor").inside_picture is True
    assert matching_settings(name, "dift", "paper") == MatchSettings(window=11)
    assert matching_settings(name, "paper", "auto", {"window": 3}).window == 3
    with pytest.raises(InputError, match="unknown matching 'x'"):
        matching_settings(name, "paper", "x")
    with pytest.raises(InputError, match="no setting windw; it has: mode, window"):
        matching_settings(name, "paper", "auto", {"windw": 3})
    with pytest.raises(InputError, match="temperature and sigma must be positive"):
        matching_settings(name, "paper", "auto", {"temperature": -1})


def test_targets_without_a_box_are_left_out_under_a_protocol_by_box(dataset, tmp_path, caplog):
    boxless = dataset.images[0]
    changed = replace(boxless, box=None)
    pairs = tuple(
        replace(
            each,
            source=changed if each.source is boxless else each.source,
            target=changed if each.target is boxless else each.target,
        )
        for each in dataset.pairs
    )
    data = replace(dataset, pairs=pairs)
    with caplog.at_level("INFO"):
        kept = scorable(data, get_protocol("paper"))
    assert len(kept) == 25
    assert any(pair.source is changed for pair in kept.pairs)
    assert "5 of 30 pairs are left out, their targets have no box" in caplog.messages
    assert scorable(data, get_protocol("pf-pascal")) is data
    assert scorable(dataset, get_protocol("paper")) is dataset
