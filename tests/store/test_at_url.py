"""A store of features at a URL: the same files, the same checks."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import pytest
import torch

from geoaware import cli
from geoaware.data.images import list_images, load_image
from geoaware.features import EXTRACTORS, Entry
from geoaware.runs.errors import InputError
from geoaware.runs.places import place
from geoaware.store import image_index
from geoaware.store.extraction import check, extract, survey
from geoaware.store.feature_store import CachedExtractor, FeatureStore, MissingFeaturesError, UnwritableError
from geoaware.store.stored_file import DamagedError
from tests import s3
from tests.store.toy_extraction import Toy, photos

POSES = ("identity", "flip")


@pytest.fixture
def cache() -> Path:
    return place(f"memory://{uuid.uuid4().hex}/cache")


def filled(folder: Path, cache: Path) -> FeatureStore:
    store = FeatureStore.of(cache, Toy())
    store.prepare()
    work = survey(list_images(folder), POSES, store)
    assert extract(work, Toy(), store, batch=2) == work.files
    store.update_manifest()
    return store


def content(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and "pictures" not in each.as_posix()
    }


def test_the_files_are_those_of_a_local_store(tmp_path: Path, cache: Path) -> None:
    folder = photos(tmp_path / "photos", 5)
    store, local = filled(folder, cache), filled(folder, tmp_path / "cache")
    assert content(cache) == content(tmp_path / "cache")
    assert len(content(cache)) == 11
    opened = FeatureStore.open(cache)
    assert opened.key == store.key == local.key
    assert [each.bytes for each in opened.entries()] == [each.bytes for each in local.entries()]
    image = folder / "001.png"
    exact = Toy()(load_image(image)).levels
    read = opened.read(opened.image(image)).levels
    assert all(torch.equal(a.half(), b) for a, b in zip(exact, read, strict=True))
    assert survey(list_images(folder), POSES, store).files == 0
    assert check(list_images(folder), POSES, store) == ([], [])
    with pytest.raises(MissingFeaturesError):
        store.read("0" * 64)


def test_every_byte_is_checked(tmp_path: Path, cache: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    store = filled(folder, cache)
    image = store.image(folder / "000.png")
    path = store.path(image)
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=f"^{path}: damaged or cut off"):
        store.read(image)
    missing, wrong = check(list_images(folder), POSES, store)
    assert (missing, wrong) == ([], [f"{path}: damaged or cut off"])
    assert store.damaged() == {(image, "identity")}
    work = survey(list_images(folder), POSES, store)
    assert extract(work, Toy(), store) == 1
    assert check(list_images(folder), POSES, store) == ([], [])


def test_an_extractor_reads_and_keeps_features_there(tmp_path: Path, cache: Path) -> None:
    images = [load_image(each) for each in list_images(photos(tmp_path / "photos", 3))]
    store = FeatureStore.of(cache, Toy(), "fp32")
    first = CachedExtractor(Toy(), store).levels_of(images)
    assert len(store.entries()) == 3
    again = CachedExtractor(Toy(seconds=100), store).levels_of(images)  # nothing is computed
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_images_are_remembered_in_objects(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_index, "_SETTLED_NS", -(10**10))
    monkeypatch.setattr(image_index, "_EACH", 2)
    folder = cache.parent / "photos"
    s3.upload(photos(tmp_path / "photos", 5), folder)
    store = filled(folder, cache)
    assert len(list(store.index.path.iterdir())) == 3
    monkeypatch.setattr(image_index, "load_image", None)  # no image is read again
    again = FeatureStore.open(store.folder)
    assert survey(list_images(folder), POSES, again).files == 0
    assert len(list(store.index.path.iterdir())) == 3


def test_a_cache_without_a_set_is_named(cache: Path) -> None:
    with pytest.raises(InputError, match=f"^{cache}: no stored features here"):
        FeatureStore.open(cache)


def test_extraction_on_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRACTORS, "toy", Entry("tests.store.toy_extraction", "Toy", "a toy"))
    local = filled(photos(tmp_path / "photos", 3), tmp_path / "cache")

    def run(cache: Path, *more: str) -> tuple[int, str, str]:
        words = ["extract", str(s3.url("in")), "--extractor", "toy", "--cache", str(cache), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["geoaware", *words, "--poses", "identity,flip", *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()  # type: ignore[return-value]

    with s3.served():
        s3.upload(tmp_path / "photos", s3.url("in"))
        code, out, said = run(s3.url("cache"))
        assert (code, out) == (0, f"s3://{s3.BUCKET}/cache/{local.folder.name}\n")
        assert "3 images, 0 files already there; 6 files to extract" in said
        assert "0.0 MB on disk, 1 at a time" in said  # how much is free is not known
        assert content(s3.url("cache")) == content(tmp_path / "cache")
        assert (
            json.loads(FeatureStore.open(s3.url("cache")).folder.joinpath("manifest.json").read_bytes())[
                "files"
            ]
            == 6
        )
        code, _, said = run(s3.url("cache"))
        assert (code, "0 extracted, 6 already there" in said) == (0, True)
        code, _, said = run(s3.url("cache"), "--check")
        assert (code, "6 files read: 0 missing, 0 damaged" in said) == (0, True)
        code, _, said = run(place("s3://missing/cache"))
        assert code == 2
        assert said.startswith("error: s3://missing/cache/")
        assert "cannot be written (The specified bucket does not exist); choose another" in said
        with pytest.raises(UnwritableError):
            FeatureStore.of("s3://missing/cache", Toy()).prepare()
