"""Label Studio's JSON: keypoints in per cent of the image, grouped by the rectangle that they lie in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from geoaware.data import fields
from geoaware.data.files import read_json
from geoaware.data.formats.hub import MARK, VISIBLE, Entry, Head, Hub, Point, Result, box_of, understanding
from geoaware.runs.errors import InputError

WHAT = "a Label Studio file"

_TASKS = re.compile(r'"(annotations|predictions|completions)"\s*:\s*\[|"keypointlabels"\s*:')
_IMAGE = ("image", "img", "picture", "photo")
_LOCAL = "/data/local-files/?d="


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return head.text.startswith("[") and _TASKS.search(head.text) is not None


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in the file: annotations or, where no task has one, predictions."""
    (path,) = paths
    tasks = read_json(path, WHAT)
    if any(isinstance(each, dict) and "data" not in each for each in tasks):
        raise InputError(f"{path}: is Label Studio's JSON-MIN, which holds too little; export it as JSON")
    found = []
    for place, task in enumerate(tasks):
        where = f"{path}: task {task.get('id', place) if isinstance(task, dict) else place}"
        with understanding(where, "Label Studio"):
            done = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
            done.sort(key=lambda each: bool(each.get("ground_truth")))
            found.append((where, task, done))
    several = sum(len(done) > 1 for _, _, done in found)
    if several:
        hub.notes.append(
            f"{several} tasks have several annotations; of each the last is used, or the ground truth"
        )
    only = not any(done for _, _, done in found)
    if only and any(task.get("predictions") for _, task, _ in found):
        hub.notes.append("no task has an annotation, so predictions are used")
    for where, task, done in found:
        with understanding(where, "Label Studio"):
            chosen = (task.get("predictions") or ())[-1:] if only else done[-1:]
            _task(where, task, [each for one in chosen for each in one["result"]], hub)


def _task(where: str, task: Mapping[str, Any], regions: Iterable[Mapping[str, Any]], hub: Hub) -> None:
    """The objects of an image: rectangles, each with the keypoints in it, and those that are in none."""
    everything = list(regions)
    regions = [each for each in everything if isinstance(each.get("value"), Mapping)]
    sizes = [(each.get("original_width"), each.get("original_height")) for each in regions]
    image = hub.image(_file_name(task["data"]), next((each for each in sizes if all(each)), (None, None)))
    points: dict[Any, dict[str, Point]] = {}
    boxes = {each["id"]: each for each in regions if each["type"].startswith("rectangle")}
    owners = {each["id"]: each.get("parentID") for each in regions}
    for each in everything:  # sleap-io groups by relations
        if each.get("type") == "relation" and each["from_id"] in boxes:
            owners[each["to_id"]] = each["from_id"]
    for each in regions:
        names = each["value"].get("keypointlabels")
        if not names:
            continue
        owner = owners[each["id"]] if owners[each["id"]] in boxes else None
        group = points.setdefault(owner, {})
        x, y = (_pixels(each, key, f"{where}: {names[0]}") for key in ("x", "y"))
        if names[0] in group:
            raise InputError(
                f"{where}: has {names[0]!r} twice; drag the keypoints of each object into its "
                "rectangle, in the list of regions"
            )
        group[names[0]] = Point(x, y, VISIBLE, each.get("score"))
    for key, each in boxes.items():
        box = [_pixels(each, side, f"{where}: rectangle") for side in ("x", "y", "width", "height")]
        name = (each["value"].get("rectanglelabels") or each["value"].get("labels") or ["object"])[0]
        hub.add(image, name, points.get(key), box)
    if points.get(None):
        hub.add(image, "object", points[None])


def _pixels(region: Mapping[str, Any], key: str, where: str) -> float:
    """A place or length in pixels."""
    side = "original_width" if key in ("x", "width") else "original_height"
    share = fields.number(region["value"].get(key), f"{where}: {key}")
    return round(share / 100 * fields.number(region.get(side), f"{where}: {side}"), 4)


def _file_name(data: Mapping[str, Any]) -> str:
    """The image of a task: a URL, a file of local storage, an upload, or a path."""
    texts = [data[each] for each in (*_IMAGE, *data) if isinstance(data.get(each), str)]
    value = str(texts[0]) if texts else ""
    if not value:
        raise InputError("its data name no image")
    if "://" not in value and not value.startswith("/data/"):
        return value
    parts = urlsplit(value)
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0].removeprefix("/data/").lstrip("/")


def write(draft: Path, result: Result) -> None:
    """Write the file: predictions where keypoints have probabilities, else annotations."""
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n"
        for image, objects in result.images():
            # That nothing was found is a prediction too.
            scored = not objects or any("keypoint_scores" in each for each in objects)
            regions = [
                each
                for number, entry in enumerate(objects)
                for each in _regions(number, entry, image, result)
            ]
            made: Entry = {"result": regions}
            if scored:
                scores = [each.get("score") or 0.0 for each in objects]
                made |= {"model_version": "geoaware", "score": sum(scores) / max(1, len(scores))}
            task = {
                "meta": {MARK: result.mark},
                "data": {"image": _LOCAL + quote(image["file_name"], errors="surrogatepass")},
                "predictions" if scored else "annotations": [made],
            }
            file.write(before + json.dumps(task, ensure_ascii=False, allow_nan=False))
            before = ",\n"
        file.write("[]\n" if before == "[\n" else "\n]\n")


def _regions(number: int, annotation: Entry, image: Entry, result: Result) -> Iterable[Entry]:
    """A rectangle and the visible keypoints in it; hidden ones could not be told apart."""
    category, points = result.named(annotation)
    box = box_of(annotation, points)
    if box is None:
        return
    width, height = image["width"], image["height"]
    shared = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    x, y, w, h = box
    yield {
        "id": f"object{number}",
        "type": "rectanglelabels",
        "from_name": "object",
        **shared,
        "value": {
            **{
                "x": 100 * x / width,
                "y": 100 * y / height,
                "width": 100 * w / width,
                "height": 100 * h / height,
            },
            "rotation": 0,
            "rectanglelabels": [category["name"]],
        },
    }
    for name, point in points.items():
        if point.flag == VISIBLE:
            place = {"x": 100 * point.x / width, "y": 100 * point.y / height, "width": 0.5}
            yield {
                "id": f"object{number}-{category['keypoints'].index(name)}",
                "parentID": f"object{number}",
                "type": "keypointlabels",
                "from_name": "keypoint",
                **shared,
                "value": {**place, "keypointlabels": [name]},
                **({} if point.score is None else {"score": point.score}),
            }
