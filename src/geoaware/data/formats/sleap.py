"""SLEAP: ``.slp``, and ``.pkg.slp`` with the images in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from geoaware.data.files import reading
from geoaware.data.formats.archive import workplace
from geoaware.data.formats.hub import (
    HIDDEN,
    MARK,
    VISIBLE,
    Entry,
    Head,
    Hub,
    Point,
    Result,
    hdf5,
    hdf5_names,
    skeleton_of,
    understanding,
    whole,
)
from geoaware.data.images import load_image
from geoaware.data.video import frames as frames_of
from geoaware.data.video import look_through, to_image
from geoaware.runs.errors import InputError
from geoaware.runs.optional import require

WHAT = "a SLEAP file"

EDGE, SYMMETRY = 1, 2
USER, PREDICTED = 0, 1
FORMAT_ID = 1.2

_POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
_KINDS: Mapping[str, list[tuple[str, str]]] = {
    "frames": [
        ("frame_id", "u8"),
        ("video", "u4"),
        ("frame_idx", "u8"),
        ("instance_id_start", "u8"),
        ("instance_id_end", "u8"),
    ],
    "instances": [
        ("instance_id", "i8"),
        ("instance_type", "u1"),
        ("frame_id", "u8"),
        ("skeleton", "u4"),
        ("track", "i4"),
        ("from_predicted", "i8"),
        ("score", "f4"),
        ("point_id_start", "u8"),
        ("point_id_end", "u8"),
        ("tracking_score", "f4"),
    ],
    "points": _POINT,
    "pred_points": [*_POINT, ("score", "f8")],
}
_GATHERED = 20_000
"""Rows that wait until they are written."""


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return hdf5_names(path, head) >= {"metadata", "videos_json"}


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in the file: what people annotated, and predictions where they did not annotate anything."""
    (path,) = paths
    with (
        reading(path, WHAT),
        path.open("rb") as raw,
        hdf5(raw, path) as file,
        understanding(str(path), "SLEAP"),
    ):
        _Reader(path, file, hub).read()


class _Reader:
    def __init__(self, path: Path, file: Any, hub: Hub) -> None:
        self.path, self.file, self.hub = path, file, hub
        self.head = json.loads(_text(file["metadata"].attrs["json"]))
        # Before 1.1 the middle of the first pixel was 0.5.
        self.shift = 0.5 if float(file["metadata"].attrs.get("format_id", 1.0)) < 1.1 else 0.0
        self.skeletons = [self._skeleton(each) for each in self.head["skeletons"]]
        self.videos = [json.loads(_text(each)) for each in whole(file["videos_json"])]
        self.points, self.predicted = whole(file["points"]), whole(file["pred_points"])

    def read(self) -> None:
        instances = whole(self.file["instances"])
        user = bool((instances["instance_type"] == USER).any())
        if len(instances) and not user:
            self.hub.notes.append("nothing was annotated by people, so predictions are used")
        for number, frame in enumerate(whole(self.file["frames"])):
            chosen = instances[int(frame["instance_id_start"]) : int(frame["instance_id_end"])]
            chosen = [each for each in chosen if each["instance_type"] == (USER if user else PREDICTED)]
            if chosen:
                with understanding(f"{self.path}: frame {number}", "SLEAP"):
                    image = self._image(int(frame["video"]), int(frame["frame_idx"]))
                    for each in chosen:
                        self._instance(each, image)

    def _skeleton(self, entry: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Name and keypoints of a skeleton, whose limbs and symmetries the hub takes."""
        graph = entry.get("nx_graph", entry)
        names = [str(each["name"]) for each in self.head["nodes"]]
        kinds, links = list[int](), dict[int, list[tuple[str, str]]]({EDGE: [], SYMMETRY: []})
        for link in graph["links"]:
            given = link["type"]
            if "py/reduce" in given:
                kinds.append(given["py/reduce"][1]["py/tuple"][0])
                kind = kinds[-1]
            else:  # the number of one that came before
                place = given["py/id"]
                kind = kinds[place - 1] if place <= len(kinds) else place
            links[kind].append((names[link["source"]], names[link["target"]]))
        name = str(graph["graph"].get("name") or "animal")
        order = [names[each["id"]] for each in graph["nodes"]]
        pairs = {frozenset(each): each for each in links[SYMMETRY]}
        self.hub.category(name, order, links[EDGE], list(pairs.values()) or None)
        return name, order

    def _instance(self, each: Any, image: Entry) -> None:
        name, order = self.skeletons[int(each["skeleton"])]
        predicted = each["instance_type"] == PREDICTED
        rows = (self.predicted if predicted else self.points)[
            int(each["point_id_start"]) : int(each["point_id_end"])
        ]
        points = {}
        for keypoint, row in zip(order, rows, strict=True):
            x, y = float(row["x"]) - self.shift, float(row["y"]) - self.shift
            if not (math.isnan(x) or math.isnan(y)):
                score = float(row["score"]) if predicted else None
                points[keypoint] = Point(x, y, VISIBLE if row["visible"] else HIDDEN, score)
        self.hub.add(image, name, points, score=float(each["score"]) if predicted else None)

    def _image(self, number: int, frame: int) -> Entry:
        """The image of a frame: of a list of files, or of those that are in the file."""
        numbers = [_number(each) for each in self.videos]
        video = self.videos[numbers.index(number) if number in numbers else number]
        backend = video["backend"]
        if backend.get("filename") == "." or backend.get("has_embedded_images"):
            return self._embedded(backend, frame)
        listed = backend.get("filenames") or video.get("filename") or backend.get("filename")
        if not isinstance(listed, list):
            return self._frame(number, str(backend.get("filename") or listed).replace("\\", "/"), frame)
        shape = backend.get("shape") or [None] * 4
        alike = shape[1:3] if len(listed) == 1 else (None, None)
        return self.hub.image(str(listed[frame]).replace("\\", "/"), (alike[1], alike[0]))

    def _frame(self, number: int, film: str, frame: int) -> Entry:
        """The image of a frame of a video, put into a folder of this run with all others of the video."""
        place = PurePosixPath(film)
        self.hub.folder = self.hub.folder or workplace("images")
        folder = self.hub.folder / f"video{number}"
        if not folder.exists():
            path = next(
                (each for each in (Path(film), self.path.parent / place.name) if each.is_file()), None
            )
            if path is None:
                raise InputError(
                    f"{self.path}: annotates frames of the video {place.name}; put it beside the file, or "
                    "export a package with images (.pkg.slp)"
                )
            video = look_through(path)
            table = whole(self.file["frames"])
            wanted = {*table["frame_idx"][table["video"] == number].tolist()}
            folder.mkdir(parents=True)
            for each, decoded in frames_of(video):
                if each in wanted:
                    to_image(video, decoded).save(folder / f"{place.stem}-{each:06}.png", compress_level=1)
        name = f"{place.stem}-{frame:06}.png"
        if not (folder / name).exists():
            raise InputError(f"{self.path}: {place.name} has no frame {frame} that can be decoded")
        return self.hub.image(f"{folder.name}/{name}")

    def _embedded(self, backend: Mapping[str, Any], frame: int) -> Entry:
        """The image of a frame, put into a folder of this run."""
        data = self.file[backend["dataset"]]
        group = backend["dataset"].rpartition("/")[0]
        numbers = whole(self.file[f"{group}/frame_numbers"]).tolist()
        kind = str(data.attrs.get("format", "png"))
        name = f"{PurePosixPath(group).name}/{frame:06}.png"
        self.hub.folder = self.hub.folder or workplace("images")
        path = self.hub.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            row = data[numbers.index(frame)]
            if kind == "hdf5":
                Image.fromarray(np.asarray(row, np.uint8).squeeze()).save(path)
            else:
                path.write_bytes(np.asarray(row).astype(np.int8).tobytes())
                if str(data.attrs.get("channel_order", "BGR")) == "BGR":
                    Image.merge("RGB", load_image(path).split()[::-1]).save(path)
        return self.hub.image(name)


def _number(video: Mapping[str, Any]) -> int | None:
    """The number that frames call a video by whose images are in the file."""
    group = str(video["backend"].get("dataset") or "").partition("/")[0]
    return int(group[5:]) if group.startswith("video") and group[5:].isdecimal() else None


def _text(value: Any) -> str:
    value = value.tobytes() if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)


def write(draft: Path, result: Result) -> None:
    """Write the file: predicted instances where keypoints have probabilities, else those of people."""
    category = result.only("SLEAP")
    with require("h5py", "formats").File(draft, "w") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"] = FORMAT_ID
        group.attrs["json"] = np.bytes_(json.dumps(_head(category, result.mark)).encode())
        tables = {name: _Table(file, name) for name in _KINDS}
        videos: dict[tuple[int, int, str], list[str]] = {}
        for image, objects in result.images():
            # The images of a video are of one size.
            film = image["video"] if image.get("video") in result.videos else ""
            key = (image.get("width") or 0, image.get("height") or 0, film)
            images = videos.setdefault(key, [])
            if not film:
                name = image["file_name"]
                images.append(name if result.folder is None else str(result.folder / name))
            frames, instances = tables["frames"], tables["instances"]
            number, first = frames.count, instances.count
            for each in objects:
                _instance(each, number, result, tables)
            place = image["frame"] if film else len(images) - 1
            frames.add((number, [*videos].index(key), place, first, instances.count))
        for table in tables.values():
            table.flush()
        _list(file, "videos_json", [_video(key, each, result) for key, each in videos.items()])
        for name in ("tracks_json", "suggestions_json", "sessions_json"):
            _list(file, name, [])


def _head(category: Entry, mark: str) -> Entry:
    names = category["keypoints"]
    kinds = {
        EDGE: skeleton_of(category),
        SYMMETRY: [(names[a], names[b]) for a, b in category.get("flip_pairs") or ()],
    }
    links: list[Entry] = []
    known = 0
    for kind, pairs in kinds.items():
        for number, (a, b) in enumerate(pairs):
            known += number == 0
            made = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [kind]}]}
            link = {"key": 0, "source": names.index(a), "target": names.index(b)}
            link |= {"type": made if number == 0 else {"py/id": known}}
            links.append({**link, "edge_insert_idx": number} if kind == EDGE else link)
    graph = {"name": category["name"], "num_edges_inserted": len(kinds[EDGE])}
    nodes = [{"id": each} for each in range(len(names))]
    return {
        "provenance": {MARK: mark},
        "version": "2.0.0",
        "skeletons": [{"directed": True, "graph": graph, "links": links, "multigraph": True, "nodes": nodes}],
        "nodes": [{"name": each, "weight": 1.0} for each in names],
        "videos": [],
        "tracks": [],
        "suggestions": [],
        "negative_anchors": {},
    }


def _instance(annotation: Entry, frame: int, result: Result, tables: Mapping[str, _Table]) -> None:
    category, points = result.named(annotation)
    predicted = "keypoint_scores" in annotation
    table, instances = tables["pred_points" if predicted else "points"], tables["instances"]
    first = table.count
    for name in category["keypoints"]:
        point = points.get(name, Point(math.nan, math.nan, 0, 0.0))
        row = (point.x, point.y, point.flag == VISIBLE, False)
        table.add((*row, point.score or 0.0) if predicted else row)
    kind, score = (PREDICTED if predicted else USER), annotation.get("score") or 0.0
    instances.add((instances.count, kind, frame, 0, -1, -1, score, first, table.count, 0.0))


def _video(key: tuple[int, int, str], images: Sequence[str], result: Result) -> Entry:
    width, height, film = key
    if film:
        path, count = result.videos[film]
        place, backend = str(path), dict[str, Any](shape=[count, height, width, 3])
        backend |= {"type": "MediaVideo", "filename": place, "grayscale": False, "bgr": True}
        return {"filename": place, "backend": backend | {"dataset": "", "input_format": "", "fps": None}}
    shape = [len(images), height, width, 3]
    backend = {"type": "ImageVideo", "shape": shape, "filename": images[0], "filenames": [*images]}
    backend |= {"height_": height, "width_": width, "channels_": 3, "grayscale": False, "fps": None}
    return {"filename": [*images], "backend": backend}


def _list(file: Any, name: str, entries: Sequence[Entry]) -> None:
    rows = [json.dumps(each).encode() for each in entries]
    kind = require("h5py", "formats").special_dtype(vlen=bytes)
    file.create_dataset(name, data=np.array(rows, dtype=object), dtype=kind, maxshape=(None,))


class _Table:
    """A table of the file, to which rows are added a few thousand at a time."""

    def __init__(self, file: Any, name: str) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._kind = np.dtype(_KINDS[name])
        self._data = file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=self._kind)
        self.count = 0

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._data.resize((self.count,))
            self._data[self.count - len(self._rows) :] = np.array(self._rows, dtype=self._kind)
            self._rows.clear()
