"""Videos as targets: which frames are used, what they are called, and the frames as image files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from geoaware.data.images import SUFFIXES
from geoaware.data.video import Video, frames, is_video, look_through, to_image
from geoaware.runs.errors import InputError
from geoaware.runs.files import locked, reading_part, replacing, writing
from geoaware.runs.progress import Tell, silent

MARK = "geoaware frames"
"""Stands before the video's mark in the file `OWN` beside its frames."""

OWN = "geoaware.json"


@dataclass(frozen=True)
class Shot:
    """A frame that is a target.

    Attributes:
        video: whose frame it is.
        name: of the video, relative to the root, with ``/``.
        number: of the frame, from 0.
    """

    video: Video
    name: str
    number: int


def only_videos(paths: Sequence[Path]) -> bool:
    """Whether what is to be annotated are videos, and not images.

    Raises:
        InputError: there are both.
    """
    kinds = {
        path: path.is_file() and path.suffix.lower() not in SUFFIXES and is_video(path) for path in paths
    }
    if len({*kinds.values()}) > 1:
        first = {kind: path for path, kind in reversed(kinds.items())}
        raise InputError(
            f"{first[True]} is a video and {first[False]} is none; annotate images and videos one after the "
            "other"
        )
    return any(kinds.values())


def list_shots(videos: Iterable[str], root: Path, every: int = 1) -> dict[str, Shot]:
    """Every N-th frame of these videos, by the name of its image: ``clip/img000125.png`` of ``clip.mp4``.

    Raises:
        InputError: a video cannot be read, or two would share names.
    """
    if every < 1:
        raise InputError(f"every frame is 1, every second one 2; got {every}", "every")
    found, stems = dict[str, Shot](), dict[str, str]()
    for name in videos:
        stem = Path(name).with_suffix("").as_posix()
        if stem in stems:
            raise InputError(f"{stems[stem]} and {name} would share the names of frames; rename one")
        stems[stem] = name
        video = look_through(root / name)
        for number in range(0, video.count, every):
            found[f"{stem}/img{number:06}.png"] = Shot(video, name, number)
    return found


def keep_frames(shots: Mapping[str, Shot], folder: Path, tell: Tell = silent) -> None:
    """Write frames as images, those that are not there yet; damaged ones are passed over.

    Raises:
        InputError: files of something else are there, or the folder cannot be written to.
    """
    done = 0
    for _, grouped in groupby(shots.items(), lambda pair: pair[1].name):
        named = list(grouped)
        paths, video = {shot.number: folder / name for name, shot in named}, named[0][1].video
        own = next(iter(paths.values())).parent
        _claim(own, video)
        with locked(own):
            left = {number: path for number, path in paths.items() if not path.exists()}
            done += len(paths) - len(left)
            tell("writing frames", done, len(shots))
            for number, frame in frames(video) if left else ():
                if number in left:
                    with replacing(left[number]) as draft, writing(folder):
                        to_image(video, frame).save(draft, "PNG", compress_level=1)
                    done += 1
                    tell("writing frames", done, len(shots))


def _claim(folder: Path, video: Video) -> None:
    """Make a folder that of the frames of a video."""
    own = folder / OWN
    if own.is_file():
        with reading_part(str(own)):
            mark = json.loads(own.read_text(encoding="utf-8"))[MARK]
        if mark == video.mark:
            return
        raise InputError(f"{folder}: holds the frames of another video; choose another folder", "frames")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there, and not as geoaware wrote it; choose another folder", "frames")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(own) as draft:
        draft.write_text(json.dumps({MARK: video.mark}), encoding="utf-8")
