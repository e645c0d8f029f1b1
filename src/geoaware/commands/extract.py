"""``geoaware extract``: the features of a folder of images, on disk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from geoaware.commands.options import (
    Device,
    EngineOptions,
    ExtractorName,
    expand,
    parse_extractor_settings,
    say,
)
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.features import Extractor
    from geoaware.method.geometry import Pose
    from geoaware.runs.work import Engine
    from geoaware.store.feature_store import FeatureStore


@dataclass(frozen=True)
class NetworkOptions:
    """How the extractor computes."""

    device: Device = "auto"
    dtype: Annotated[str, Option(help="fp32, bf16, fp16; auto: by free memory.")] = "fp32"
    setting: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="A setting of the extractor; may be repeated."),
    ] = None


@expand
def extract(
    folder: Annotated[Path, Argument(metavar="DIR", help="The folder of the images.")],
    cache: Annotated[Path, Option(help="Where the features go; may hold several sets.")],
    extractor: ExtractorName = "lite",
    poses: Annotated[
        str, Option(help="Comma-separated: identity, flip, rot90, rot180, rot-90; or all.")
    ] = "identity",
    stored: Annotated[
        str, Option("--dtype-stored", help="fp16, fp32, or int8 with a scale for each channel.")
    ] = "fp16",
    recursive: Annotated[bool, Option("--recursive", help="Look into the folders inside DIR too.")] = False,
    check: Annotated[
        bool, Option("--check", help="Extract nothing; read every file and list what is wrong.")
    ] = False,
    batch: Annotated[str, Option(metavar="N|auto", help="Images at a time; auto: by free memory.")] = "auto",
    max_memory: Annotated[
        float | None, Option(metavar="GB", help="What weights and computation may take together.")
    ] = None,
    *,
    network: NetworkOptions,
    engine: EngineOptions,
) -> None:
    """Extract the features of a folder of images into a cache, to be read many times.

    A run that was stopped goes on where it was when the same command is given again. Several runs may fill
    one cache at the same time.

    Examples:

    geoaware extract photos/ --extractor lite --cache features/ --poses identity,flip

    geoaware extract photos/ --extractor lite --cache features/ --poses identity,flip --check
    """
    turned, size, limit = _poses(poses), _batch(batch), _bytes(max_memory)

    from geoaware.data.images import list_images
    from geoaware.store.feature_store import FeatureStore
    from geoaware.store.stored_file import STORED

    if stored not in STORED:
        raise InputError(f"features cannot be stored as {stored!r}; choose {', '.join(STORED)}")
    paths = list_images(folder, recursive)
    worker = engine.load(len(paths), "geoaware.store.extraction")
    loaded = _load(extractor, network, limit)
    job = _Job(paths, turned, FeatureStore.of(cache, loaded, stored), worker)
    if check:
        _check(job)
    else:
        left = _left(limit, loaded)
        if left is not None:
            loaded.limit_memory(left)
        _extract(job, loaded, size, left)


@dataclass(frozen=True)
class _Job:
    """The images, where their features go, and what extracts them."""

    paths: list[Path]
    poses: tuple[Pose, ...]
    store: FeatureStore
    engine: Engine


def _extract(job: _Job, extractor: Extractor, batch: int | None, limit: int | None) -> None:
    """Look for what is missing, extract it, leave a manifest, and say what failed (exit code 1)."""
    from geoaware.runs.progress import advancing, progress_bars
    from geoaware.store import extraction
    from geoaware.store.feature_store import DiskFullError

    job.store.prepare()
    with progress_bars(terminal_only=True) as tell:
        advance = advancing(tell, "looking", len(job.paths))
        work = extraction.survey(job.paths, job.poses, job.store, advance)
        before = f"{len(job.paths)} images, {work.there} files already there"
        try:
            written = extraction.extract(
                work,
                extractor,
                job.store,
                batch=batch,
                memory=limit,
                engine=job.engine,
                announce=lambda estimate: say(f"{before}; {estimate}"),
                progress=advancing(tell, "extracting", work.files),
            )
        finally:
            # Without room for the manifest, the next run brings it up to date with the files.
            with suppress(DiskFullError, InputError):
                if job.store.folder.is_dir():
                    job.store.update_manifest()
    for line in work.failed:
        say(f"failed: {line}")
    say(f"{written} extracted, {work.there} already there, {len(work.failed)} failed")
    typer.echo(job.store.folder)
    if work.failed:
        raise typer.Exit(1)


def _check(job: _Job) -> None:
    """List what is missing or damaged; exit code 2 if anything is."""
    from geoaware.runs.progress import advancing, progress_bars
    from geoaware.store import extraction

    files = len(job.store.entries())
    with progress_bars(terminal_only=True) as tell:
        advance = advancing(tell, "checking", files)
        missing, wrong = extraction.check(job.paths, job.poses, job.store, advance)
    for line in [*wrong, *missing]:
        typer.echo(line)
    say(f"{files} files read: {len(missing)} missing, {len(wrong)} damaged or unreadable")
    if missing or wrong:
        say("to mend: the same command without --check extracts what is missing or damaged")
        raise typer.Exit(2)


def _load(name: str, network: NetworkOptions, limit: int | None) -> Extractor:
    from geoaware.features import choose_device, load_extractor
    from geoaware.features.extractor import choose_dtype
    from geoaware.presets import preset_extractor
    from geoaware.store.memory import choose_dtype_by_memory, weights_size

    settings = parse_extractor_settings(network.setting)
    where, known = choose_device(network.device), preset_extractor(name)
    if network.dtype != "auto":
        return load_extractor(known, device=where, dtype=network.dtype, **settings)
    extractor = load_extractor(known, device="cpu", dtype="fp32", **settings)
    chosen = choose_dtype_by_memory(weights_size(extractor), where, limit)
    say(f"computing in {chosen} on {where}")
    return extractor.to(device=where, dtype=choose_dtype(chosen, where))


def _left(limit: int | None, extractor: Extractor) -> int | None:
    """What the computation may take beside the weights, which must take less than is allowed."""
    from geoaware.features.extractor import DTYPES
    from geoaware.store.memory import weights_size

    if limit is None:
        return None
    weights = weights_size(extractor, next(name for name, each in DTYPES.items() if each == extractor.dtype))
    if weights >= limit:
        raise InputError(
            f"the weights of {extractor.name} take {weights / 1e9:.2f} GB, --max-memory allows "
            f"{limit / 1e9:.2f}; allow more, or use --dtype bf16"
        )
    return limit - weights


def _poses(given: str) -> tuple[Pose, ...]:
    from geoaware.method.geometry import POSES

    names = [each.strip() for each in given.split(",") if each.strip()]
    wanted = set(POSES) if names == ["all"] else set(names)
    unknown = sorted(wanted - set(POSES))
    if unknown or not wanted:
        raise InputError(f"unknown poses {given!r}; choose among {', '.join(POSES)}, comma-separated, or all")
    return tuple(pose for pose in POSES if pose in wanted)


def _batch(given: str) -> int | None:
    if given == "auto":
        return None
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"--batch takes a number of images or auto, got {given!r}")
    return int(given)


def _bytes(gigabytes: float | None) -> int | None:
    if gigabytes is None:
        return None
    if not 0 < gigabytes < 1e6:
        raise InputError(f"--max-memory takes gigabytes, above 0 and below a million, got {gigabytes:g}")
    return int(gigabytes * 1e9)
