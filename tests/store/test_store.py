"""The feature store: what it costs, what it keeps, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from geoaware.data.images import list_images
from geoaware.method.geometry import POSES, pose_image
from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing
from geoaware.store import extraction, feature_store
from geoaware.store.extraction import extract, survey
from geoaware.store.feature_store import (
    CachedExtractor,
    DiskFullError,
    FeatureStore,
    MissingFeaturesError,
)
from geoaware.store.image_index import ImageIndex, hash_pixels
from geoaware.store.stored_file import (
    STORED,
    DamagedError,
    FileKey,
    OtherFeaturesError,
    SetKey,
    decode,
    encode,
    encoded_size,
)
from tests.store.toy_extraction import Toy, photos, run, snapshot
from tests.toys import noise

ROOT = Path(__file__).resolve().parents[2]
PICTURE, OTHER = "ab" * 32, "cd" * 32
SHAPES = ((640, 60, 60), (1280, 30, 30), (1280, 15, 15), (768, 60, 60))


def key(stored: str = "fp16", **changes: str) -> SetKey:
    return SetKey(**{"name": "toy", "extractor": "toy(grid=7)", "weights": "0" * 64, "computed": "fp32",
                     "stored": stored, **changes})  # type: ignore[arg-type]  # fmt: skip


def maps(*shapes: tuple[int, int, int], seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def store_at(folder: Path, stored: str = "fp16", **changes: str) -> FeatureStore:
    wanted = key(stored, **changes)
    return FeatureStore(folder / wanted.folder, wanted)


@pytest.mark.parametrize(("stored", "limit"), [("fp16", 13.2e6), ("int8", 6.7e6), ("fp32", 26.1e6)])
def test_a_image_of_the_papers_features_takes_what_was_promised(
    tmp_path: Path, stored: str, limit: float
) -> None:
    store = store_at(tmp_path, stored)
    store.write(PICTURE, "identity", maps(*SHAPES), (640, 480))
    size = store.path(PICTURE).stat().st_size
    assert size <= limit
    assert size <= encoded_size(SHAPES, store.key.stored) <= size + 8192
    assert [tuple(level.shape) for level in store.read(PICTURE).levels] == list(SHAPES)


@pytest.mark.parametrize("stored", STORED)
def test_values_come_back_as_near_as_documented(tmp_path: Path, stored: str) -> None:
    store = store_at(tmp_path, stored)
    written = maps((3, 5, 5), (4, 2, 2), scale=30.0)
    written[0][1] = 0
    written[0][2] *= 1e-3
    returned = store.write(PICTURE, "flip", written, (9, 7))
    read = store.read(PICTURE, "flip")
    assert read.size == (9, 7)
    for exact, level, given_back in zip(written, read.levels, returned.levels, strict=True):
        assert torch.equal(level, given_back)
        error = (level.float() - exact).abs()
        if stored == "fp32":
            assert torch.equal(level, exact)
        elif stored == "fp16":
            assert torch.equal(level, exact.half())
            assert (error <= exact.abs() * 2**-11 + 3e-8).all()
        else:
            largest = exact.abs().amax(dim=(1, 2), keepdim=True)
            assert (error <= largest / 254 * 1.0001).all()
            assert (error.amax(dim=(1, 2)) > 0).sum() >= len(exact) - 1


def test_int8_by_hand(tmp_path: Path) -> None:
    level = torch.tensor([[[127.0, -63.6], [0.4, 0.6]], [[0.0, 0.0], [0.0, 0.0]]])
    read = store_at(tmp_path, "int8").write(PICTURE, "identity", [level], (2, 2))
    assert read.levels[0].tolist() == [[[127.0, -64.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]


def test_the_file_is_plain_safetensors_and_says_what_it_is(tmp_path: Path) -> None:
    store = store_at(tmp_path, "int8")
    store.write(PICTURE, "rot90", maps((3, 4, 4)), (4, 6))
    with safe_open(store.path(PICTURE, "rot90"), "pt") as file:
        about = json.loads(file.metadata()["geoaware"])
        assert sorted(file.keys()) == ["level00", "level00.scale"]
        assert file.get_tensor("level00.scale").dtype == torch.float32
    assert about["features"]["weights"] == "0" * 64
    assert (about["picture"], about["pose"], about["size"]) == (PICTURE, "rot90", [4, 6])


def test_equal_features_are_equal_bytes(tmp_path: Path) -> None:
    wanted = FileKey(key(), PICTURE, "identity")
    ordinary, turned = maps((6, 5, 5)), [maps((6, 5, 5))[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)]
    assert encode(ordinary, (3, 4), wanted) == encode(turned, (3, 4), wanted)


@pytest.mark.parametrize("stored", STORED)
def test_every_flipped_bit_of_a_small_file_is_found(stored: str) -> None:
    wanted = FileKey(key(stored), PICTURE, "identity")
    whole = np.frombuffer(encode(maps((2, 3, 3)), (3, 3), wanted), np.uint8)
    decode(whole, "x", wanted)
    for place in range(len(whole)):
        damaged = whole.copy()
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(DamagedError, match="x: damaged or cut off"):
            decode(damaged, "x", wanted)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_to_a_block_or_a_cut_is_found(data: st.DataObject) -> None:
    wanted = FileKey(key("fp32"), PICTURE, "identity")
    whole = np.frombuffer(_LARGE, np.uint8)
    damaged = whole.copy()
    kind = data.draw(st.sampled_from(["flip", "zero", "cut", "shift", "random", "exchange"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    end = min(len(whole), place - place % 4096 + 4096)
    if kind == "flip":
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zero":
        damaged[place:end] = 0
    elif kind == "cut":
        damaged = damaged[:place]
    elif kind == "shift":
        damaged[place:] = np.roll(damaged[place:], 1)
    elif kind == "exchange":
        start, other = (data.draw(st.integers(1, len(whole) // 4096 - 1)) * 4096 for _ in "ab")
        damaged[start:][:4096], damaged[other:][:4096] = whole[other:][:4096], whole[start:][:4096]
    else:
        damaged[place:end] = np.random.default_rng(place).integers(0, 256, end - place, dtype=np.uint8)
    if np.array_equal(damaged, whole):
        return
    with pytest.raises(DamagedError):
        decode(damaged, "x", wanted)


_LARGE = bytes(encode(maps((40, 64, 64), (3, 5, 5)), (3, 3), FileKey(key("fp32"), PICTURE, "identity")))


def test_a_damaged_file_on_disk_is_refused_though_it_was_read_before(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(PICTURE, "identity", maps((6, 9, 9)), (3, 3))
    store.read(PICTURE)
    path = store.path(PICTURE)
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="check the store"):
        store.read(PICTURE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        store.read(PICTURE)
    path.write_bytes(b"")
    with pytest.raises(DamagedError):
        store.read(PICTURE)
    path.unlink()
    with pytest.raises(MissingFeaturesError, match="were not extracted"):
        store.read(PICTURE)


def test_what_one_reader_writes_into_its_tensors_no_other_sees(tmp_path: Path) -> None:
    store = store_at(tmp_path, "fp32")
    (exact,) = store.write(PICTURE, "identity", maps((6, 9, 9)), (3, 3)).levels
    before = store.path(PICTURE).read_bytes()
    first = store.read(PICTURE)
    first.levels[0].zero_()
    second = store.read(PICTURE)
    assert torch.equal(second.levels[0], exact)
    del first
    second.levels[0].add_(1)
    assert torch.equal(store.read(PICTURE).levels[0], exact)
    del second
    assert torch.equal(store.read(PICTURE).levels[0], exact)
    assert torch.equal(store.read(PICTURE).levels[0], exact)
    assert store.path(PICTURE).read_bytes() == before


def test_few_mappings_are_kept(tmp_path: Path) -> None:
    wanted = key()
    store = FeatureStore(tmp_path / wanted.folder, wanted, keep=2)
    images = [f"{number:064x}" for number in range(5)]
    for seed, image in enumerate(images):
        store.write(image, "identity", maps((2, 3, 3), seed=seed), (3, 3))
    for seed, image in [*enumerate(images), *enumerate(images)]:
        assert torch.equal(store.read(image).levels[0], maps((2, 3, 3), seed=seed)[0].half())
    assert len(store._maps._kept) == 2


def test_values_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    with pytest.raises(InputError, match=r"7e\+04 do not fit fp16 .* store them as fp32"):
        store.write(PICTURE, "identity", [torch.full((1, 2, 2), 70000.0)], (2, 2))
    with pytest.raises(InputError, match="not finite"):
        store.write(PICTURE, "identity", [torch.full((1, 2, 2), float("nan"))], (2, 2))
    assert not store.has(PICTURE)
    assert not snapshot(tmp_path)


def test_changed_weights_or_settings_are_another_set(tmp_path: Path) -> None:
    stores = [
        store_at(tmp_path),
        store_at(tmp_path, weights="1" * 64),
        store_at(tmp_path, extractor="toy(grid=8)"),
        store_at(tmp_path, computed="bf16"),
        store_at(tmp_path, "int8"),
    ]
    assert len({store.folder for store in stores}) == 5
    stores[0].write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
    assert [store.has(PICTURE) for store in stores] == [True, False, False, False, False]


def test_a_file_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    store, other = store_at(tmp_path), store_at(tmp_path, weights="1" * 64)
    store.write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
    other.path(PICTURE).parent.mkdir(parents=True)
    shutil.copy(store.path(PICTURE), other.path(PICTURE))
    with pytest.raises(OtherFeaturesError, match=r"weights 000000000000… instead of 111111111111…"):
        other.read(PICTURE)
    store.path(OTHER).parent.mkdir()
    shutil.copy(store.path(PICTURE), store.path(OTHER))
    with pytest.raises(OtherFeaturesError, match=r"image abab.* instead of cdcd"):
        store.read(OTHER)
    shutil.copy(store.path(PICTURE), store.path(PICTURE, "flip"))
    with pytest.raises(OtherFeaturesError, match=r"\(identity\) instead of .*\(flip\)"):
        store.read(PICTURE, "flip")


def test_the_manifest_is_derived_and_mends_itself(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
    store.write(PICTURE, "flip", maps((2, 3, 3)), (3, 3))
    store.write(OTHER, "identity", maps((2, 3, 3)), (3, 3))
    manifest = store.update_manifest()
    assert (manifest["pictures"], manifest["files"]) == (2, 3)
    assert manifest["poses"] == {"identity": 2, "flip": 1}
    assert manifest["levels"] == [[2, 3, 3]]
    assert manifest["bytes"] == sum(len(content) for content in snapshot(tmp_path).values())
    path = store.folder / "manifest.json"
    whole = path.read_text()
    assert FeatureStore.open(store.folder).key == store.key
    for damaged in (whole[:50], whole.replace("0" * 64, "1" * 64), "[]", ""):
        path.write_text(damaged)
        opened = FeatureStore.open(tmp_path)
        assert opened.key == store.key
        assert opened.read(PICTURE, "flip").size == (3, 3)
    opened.update_manifest()
    assert path.read_text() == whole


def test_a_manifest_of_changed_weights_does_not_make_the_files_right(tmp_path: Path) -> None:
    store, other = store_at(tmp_path), store_at(tmp_path / "b", weights="1" * 64)
    for each in (store, other):
        each.write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
        each.update_manifest()
    shutil.copy(other.folder / "manifest.json", store.folder / "manifest.json")
    with pytest.raises(OtherFeaturesError, match="weights"):
        FeatureStore.open(store.folder).read(PICTURE)


def test_open_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stored features here; make them: geoaware extract"):
        FeatureStore.open(tmp_path / "nowhere")
    for stored in ("fp16", "int8"):
        store = store_at(tmp_path, stored)
        store.write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
        store.update_manifest()
    with pytest.raises(InputError, match=r"several sets .*toy-fp16-.*toy-int8-"):
        FeatureStore.open(tmp_path)
    shutil.rmtree(store.folder / "ab")
    (store.folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="neither a manifest nor any sound file"):
        FeatureStore.open(store.folder)


def test_pixels_are_what_counts(tmp_path: Path) -> None:
    image = noise(20, 10, 0)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.bmp")
    turned = Image.Exif()
    turned[0x0112] = 6
    pose_image(image, "rot90").save(tmp_path / "b.png", exif=turned)
    index = ImageIndex(tmp_path / "index.jsonl")
    assert {index.hash_of(tmp_path / name) for name in ("a.png", "a.bmp", "b.png")} == {hash_pixels(image)}
    assert hash_pixels(pose_image(image, "flip")) != hash_pixels(image)
    # The same bytes in another shape are another image.
    assert hash_pixels(Image.new("RGB", (4, 2))) != hash_pixels(Image.new("RGB", (2, 4)))


def test_the_index_saves_decoding_and_notices_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    noise(20, 10, 0).save(path)
    index = ImageIndex(tmp_path / "index.jsonl")
    young = index.hash_of(path)
    assert not index.path.exists(), "a file this young may change again within the clock's resolution"
    monkeypatch.setattr("geoaware.store.image_index._SETTLED_NS", -1)
    ImageIndex(index.path).hash_of(path)
    with index.path.open("ab") as file:
        file.write(b"cut off in the mid")
    other = tmp_path / "b.png"
    noise(20, 10, 1).save(other)
    ImageIndex(index.path).hash_of(other)
    with monkeypatch.context() as patched:
        patched.setattr("geoaware.store.image_index.load_image", None)
        again = ImageIndex(index.path)
        assert again.hash_of(path) == young
        assert again.hash_of(other) == hash_pixels(noise(20, 10, 1))
    times = path.stat()
    noise(20, 10, 2).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ImageIndex(index.path).hash_of(path) == hash_pixels(noise(20, 10, 2))


def test_the_weights_hash_knows_names_values_and_dtype() -> None:
    plain = Toy().weights_hash()
    assert plain == Toy().weights_hash()
    assert Toy(weight=1.0000001).weights_hash() != plain
    assert Toy().to(torch.bfloat16).weights_hash() != plain


@pytest.mark.parametrize("stored", STORED)
def test_a_cached_extractor_gives_the_same_whether_stored_or_not(tmp_path: Path, stored: str) -> None:
    extractor = Toy()
    store = FeatureStore.of(tmp_path, extractor, stored)  # type: ignore[arg-type]
    cached = CachedExtractor(extractor, store)
    images = [noise(50, 40, 0), noise(30, 60, 1)]
    assert cached.identity == extractor.identity
    assert (cached.name, cached.layout, cached.dtype) == ("toy", extractor.layout, torch.float32)
    first = cached(images)
    assert len(store.entries()) == 2
    extractor.levels = None  # type: ignore[method-assign]
    second = cached(images)
    for fresh, read, exact in zip(first, second, Toy()(images), strict=True):
        assert torch.equal(fresh.data, read.data)
        assert read.canvas == exact.canvas
        assert read.extractor == exact.extractor
        assert len(read.levels) == 2
        torch.testing.assert_close(read.data, exact.data, atol=0.03, rtol=0)
        if stored == "fp32":
            assert torch.equal(read.data, exact.data)
    assert torch.equal(cached(images[1]).data, first[1].data)
    assert cached([]) == []


@pytest.mark.parametrize("pose", POSES)
def test_a_turned_image_is_found_under_the_image(tmp_path: Path, pose: str) -> None:
    photos(tmp_path / "in", 1)
    extractor = Toy()
    store = FeatureStore.of(tmp_path / "cache", extractor)
    extract(survey(list_images(tmp_path / "in"), (pose,), store), extractor, store, batch=1)  # type: ignore[arg-type]
    extractor.levels = None  # type: ignore[method-assign]
    turned = pose_image(Image.open(tmp_path / "in" / "000.png"), pose)  # type: ignore[arg-type]
    found = CachedExtractor(extractor, store)(turned)
    torch.testing.assert_close(found.data, Toy()(turned).data, atol=2e-3, rtol=1e-3)
    assert (found.canvas.width, found.canvas.height) == turned.size


def test_a_damaged_file_behind_a_cached_extractor_is_computed_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extractor = Toy()
    store = FeatureStore.of(tmp_path, extractor)
    cached, image = CachedExtractor(extractor, store), noise(50, 40, 0)
    good = cached(image).data
    path = store.path(hash_pixels(image))
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    assert torch.equal(cached(image).data, good)
    assert "computed anew" in caplog.text
    assert path.read_bytes() == content


def test_a_store_of_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    store = FeatureStore.of(tmp_path, Toy())
    with pytest.raises(InputError, match=r"holds other features \(weights [0-9a-f]{12}… instead of"):
        CachedExtractor(Toy(weight=2.0), store)
    with pytest.raises(InputError, match="extractor 'toy"):
        CachedExtractor(Toy(name="toy2"), store)
    with pytest.raises(InputError, match="computed 'fp32' instead of 'bf16'"):
        CachedExtractor(Toy().to(torch.bfloat16), store)


def test_one_unreadable_image_does_not_stop_the_rest(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 3)
    (folder / "001.png").write_text("not an image")
    extractor = Toy()
    store = FeatureStore.of(tmp_path / "cache", extractor)
    work = survey(list_images(folder), ("identity",), store)
    assert extract(work, extractor, store, batch=2) == 2
    assert [line for line in work.failed if "001.png: not an image" in line] == work.failed != []


def test_equal_images_are_extracted_once(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 2)
    shutil.copy(folder / "000.png", folder / "copy.png")
    store = FeatureStore.of(tmp_path / "cache", Toy())
    assert survey(list_images(folder), ("identity", "flip"), store).files == 4


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = photos(tmp_path / "in", 6)
    sizes = []

    class Small(Toy):
        def levels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")
            return super().levels(pixels)

    extractor = Small()
    store = FeatureStore.of(tmp_path / "cache", extractor)
    assert extract(survey(list_images(folder), ("identity",), store), extractor, store, batch=4) == 6
    assert sizes == [1, 4, 2, 2, 2]
    assert "going on with 2" in caplog.text


def test_the_disk_is_looked_at_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "in", 3)
    extractor = Toy()
    store = FeatureStore.of(tmp_path / "cache", extractor)
    usage = shutil.disk_usage(tmp_path)._replace(free=10000)
    monkeypatch.setattr(extraction.shutil, "disk_usage", lambda _: usage)
    told = []
    with pytest.raises(InputError, match=r"cache: 0\.0 MB are needed .*store the features as int8"):
        extract(survey(list_images(folder), ("identity",), store), extractor, store, announce=told.append)
    size = encoded_size([(13, 7, 7), (5, 4, 4)], "fp16")
    assert [(each.files, each.bytes, each.free) for each in told] == [(3, 3 * size, 10000)]
    assert not snapshot(tmp_path)


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="disk is full; what is finished stays"):
        run(folder, cache)
    assert len(snapshot(cache)) == 2
    assert not list(cache.rglob(".*"))
    monkeypatch.setattr(os, "fsync", real)
    run(folder, cache)
    assert len(snapshot(cache)) == 8


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_small_tmpfs_fills_up_in_the_middle(tmp_path: Path) -> None:
    folder, disk = photos(tmp_path / "in", 12), tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        extractor = Toy()
        store = FeatureStore.of(disk / "cache", extractor)
        work = survey(list_images(folder), ("identity",), store)

        def another_program(_: int) -> None:
            with (disk / "ballast").open("ab") as file:
                file.write(b"x" * 40000)

        with pytest.raises((DiskFullError, OSError), match=r"full|No space"):
            extract(work, extractor, store, batch=1, progress=another_program)
        done = snapshot(disk)
        assert 0 < len(done) < 12
        for entry in store.entries():
            store.read(entry.image, entry.pose)
        assert not [path for path in disk.rglob("*") if path.name.startswith(".")]
        (disk / "ballast").unlink()
        extract(survey(list_images(folder), ("identity",), store), extractor, store, batch=1)
        assert snapshot(disk).items() >= done.items()
        assert len(snapshot(disk)) == 12
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _python(module: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 60)
    process = _python("tests.store.toy_extraction", folder, tmp_path / "cache", 20)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    left = [int(line) for line in out.split()]
    assert len(left) == 20
    assert left == sorted(left)
    assert len(set(left)) >= 10, "the kills must fall into the work"
    run(folder, tmp_path / "cache")
    assert snapshot(tmp_path / "cache") == snapshot(tmp_path / "undisturbed")
    manifests = [(FeatureStore.of(tmp_path / name, Toy()).folder / "manifest.json").read_bytes()
                 for name in ("cache", "undisturbed")]  # fmt: skip
    assert manifests[0] == manifests[1]


def test_two_processes_extract_the_same_folder(tmp_path: Path) -> None:
    folder, cache = photos(tmp_path / "in", 30), tmp_path / "cache"
    code = (
        "from pathlib import Path; from tests.store.toy_extraction import run;"
        f"run(Path({str(folder)!r}), Path({str(cache)!r}), seconds=0.001)"
    )
    # Whole processes, not forks: a forked child of a process with running OpenMP threads may wait for ever.
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for _ in range(2)
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    run(folder, tmp_path / "alone")
    assert snapshot(cache) == snapshot(tmp_path / "alone")
    manifest = json.loads((FeatureStore.of(cache, Toy()).folder / "manifest.json").read_text())
    assert (manifest["files"], manifest["pictures"]) == (60, 30)


def test_abandoned_drafts_go_and_those_of_living_processes_stay(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(PICTURE, "identity", maps((2, 3, 3)), (3, 3))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with replacing(store.path(OTHER)) as living, replacing(store.folder / "manifest.json") as manifest:
        dead = [path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
                for path in (living, manifest)]  # fmt: skip
        for draft in (living, manifest, *dead):
            draft.write_bytes(b"half")
            os.utime(draft, (1e9, 1e9))
        assert len(store.entries()) == 1
        assert store.prepare() == 2
        assert [path.exists() for path in (living, manifest, *dead)] == [True, True, False, False]


def test_a_check_finds_and_the_next_run_mends(tmp_path: Path) -> None:
    folder, cache = photos(tmp_path / "in", 4), tmp_path / "cache"
    run(folder, cache)
    before = snapshot(cache)
    store = FeatureStore.of(cache, Toy())
    first, second, third, _ = sorted(cache.rglob("*.safetensors"))[:4]
    content = bytearray(first.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 16
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:1000])
    third.unlink()
    missing, wrong = extraction.check(list_images(folder), ("identity", "flip"), store)
    assert len(missing) == 1
    assert sorted(line.split(":")[0] for line in wrong) == sorted(map(str, (first, second)))
    assert len(store.damaged()) == 2
    run(folder, cache)
    assert snapshot(cache) == before
    assert store.damaged() == set()
    assert extraction.check(list_images(folder), ("identity", "flip"), store) == ([], [])


def test_files_of_an_older_format_are_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, cache = photos(tmp_path / "in", 3), tmp_path / "cache"
    run(folder, cache)
    before, store = snapshot(cache), FeatureStore.of(cache, Toy())

    def age(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b'\\"version\\":2', b'\\"version\\":1'))

    for path in cache.rglob("*.safetensors"):
        age(path)
    old = json.loads((store.folder / "manifest.json").read_text())
    del old["version"], old["checksum"]
    old["checksum"] = feature_store._digest(old)
    (store.folder / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(DamagedError, match="written by an older geoaware; check the store"):
        store.read(store.entries()[0].image)
    run(folder, cache)
    assert snapshot(cache) == before
    age(store.path(store.image(folder / "000.png")))
    CachedExtractor(Toy(), store)(folder / "000.png")
    assert "written by an older geoaware; computed anew" in caplog.text
    assert snapshot(cache) == before


def test_a_limit_of_memory_reaches_the_extractor_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor, told = Toy(), []
    monkeypatch.setattr(extractor, "limit_memory", told.append)
    CachedExtractor(extractor, FeatureStore.of(tmp_path, extractor)).limit_memory(1000)
    assert told == [1000]


def test_what_the_store_does_not_do_the_extractor_inside_does(tmp_path: Path) -> None:
    extractor = Toy()
    cached = CachedExtractor(extractor, FeatureStore.of(tmp_path, extractor))
    levels = extractor.levels_of([noise(50, 40, 0)])
    assert torch.equal(cached.combine(levels, 3), extractor.combine(levels, 3))
    assert cached.combine(levels, 3).shape == (1, 18, 3, 3)
    canvas = torch.ones(1, 3, 35, 35)
    assert all(map(torch.equal, cached.levels(canvas), extractor.levels(canvas)))
    assert (cached.device, cached.weights_hash()) == (extractor.device, extractor.weights_hash())


def test_fused_features_are_stored_as_all_their_maps(tmp_path: Path) -> None:
    from geoaware.features.fused import Fused

    fused = Fused([Toy(), Toy(name="other", weight=0.5)])
    store = FeatureStore.of(tmp_path, fused, "fp32")
    image = noise(50, 40, 0)
    exact = fused(image)
    CachedExtractor(fused, store)(image)
    read = CachedExtractor(fused, store)(image)
    assert len(store.read(hash_pixels(image)).levels) == 4
    assert torch.equal(read.data, exact.data)
    assert read.extractor == exact.extractor


def test_names_of_hubs_and_classes_make_plain_folders() -> None:
    for name in ("hub:facebook/dino-vitb16", "mine.nets:Net"):
        folder = SetKey(name, f"{name}()", "0" * 64, "fp32", "fp16").folder
        assert not set(folder) & set(":/\\")
        assert folder.startswith(name.replace(":", "-").replace("/", "-"))
    assert SetKey("sd15+dinov2-base", "x", "0" * 64, "fp32", "fp16").folder.startswith(
        "sd15+dinov2-base-fp16-"
    )
