"""Predictions as Parquet, and at a URL."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from geoaware import cli
from geoaware.data import DataSet
from geoaware.evaluation import score_file
from geoaware.evaluation.formats import to_json
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.evaluation.predictions import read, records
from geoaware.evaluation.protocols import get_protocol
from geoaware.runs.errors import InputError
from geoaware.runs.places import place
from tests import s3
from tests.evaluation.tiny import tiny_dataset, tiny_matcher

SETTINGS = PredictSettings(batch=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lines(dataset: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(dataset, tiny_matcher(), tmp_path_factory.mktemp("lines") / "p.jsonl", SETTINGS)


@pytest.fixture(scope="module")
def table(dataset: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(dataset, tiny_matcher(), tmp_path_factory.mktemp("table") / "p.parquet", SETTINGS)


def test_a_row_for_each_keypoint_of_a_target(dataset: DataSet, table: Path) -> None:
    frame = pandas.read_parquet(table)
    assert len(frame) == sum(len(pair.target.keypoints.visible_ids) for pair in dataset.pairs)
    scored = frame[frame.predicted_x.notna()]
    assert len(scored) == sum(len(pair.common_ids) for pair in dataset.pairs)
    assert scored.geometry_aware.notna().all()
    assert frame.pair.drop_duplicates().tolist() == [pair.id for pair in dataset.pairs]
    first, pair = scored[scored.pair == dataset.pairs[0].id], dataset.pairs[0]
    assert first.keypoint.tolist() == [dataset.schemas["cat"].names[each] for each in pair.common_ids]
    truth = first[["truth_x", "truth_y"]].to_numpy()
    assert np.array_equal(truth, pair.target.keypoints.at(pair.common_ids).numpy())
    assert set(first["size"]) == {get_protocol("paper").size(pair.target)}


def test_the_table_is_scored_like_the_lines(lines: Path, table: Path) -> None:
    (header, one), (same, other) = read(lines), read(table)
    assert header == same
    for each in fields(one):
        assert np.array_equal(getattr(one, each.name), getattr(other, each.name)), each.name
    assert list(records(table)) == [
        {key: record[key] for key in found}
        for record, found in zip(records(lines), records(table), strict=True)
    ]
    assert to_json(score_file(table)) == to_json(score_file(lines))


def test_a_table_is_known_as_its_own(dataset: DataSet, table: Path) -> None:
    before = table.read_bytes()
    predict(dataset, tiny_matcher(), table, SETTINGS)
    with pytest.raises(InputError, match="belongs to another run"):
        predict(dataset, tiny_matcher("off"), table, SETTINGS)
    assert table.read_bytes() == before


def test_other_tables_are_refused(dataset: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    pandas.DataFrame({"pair": ["a"]}).to_parquet(out)
    with pytest.raises(InputError, match="exists and was not written by this command of geoaware"):
        predict(dataset, tiny_matcher(), out, SETTINGS, restart=True)
    with pytest.raises(InputError, match=r"p.parquet: metadata: not the header of a predictions file"):
        read(out)


def test_a_url_gets_the_same_bytes(dataset: DataSet, lines: Path, table: Path) -> None:
    for local in (lines, table):
        out = place(f"memory://{uuid.uuid4().hex}/{local.name}")

        def stop(what: str, done: int, total: int) -> None:
            if done == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict(dataset, tiny_matcher(), out, SETTINGS, progress=stop)
        assert not out.exists()
        assert predict(dataset, tiny_matcher(), out, SETTINGS) == out
        assert out.read_bytes() == local.read_bytes()
        assert list(out.parent.iterdir()) == [out]


def test_predictions_on_s3(
    dataset: DataSet, lines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with s3.served():
        s3.upload(dataset.images[0].path.parent, s3.url("tiny"))
        images = {each.id: replace(each, path=s3.url(f"tiny/{each.id}")) for each in dataset.images}
        pairs = [
            replace(pair, source=images[pair.source.id], target=images[pair.target.id])
            for pair in dataset.pairs
        ]
        out = predict(replace(dataset, pairs=pairs), tiny_matcher(), s3.url("out/p.jsonl"), SETTINGS)
        assert out.read_bytes() == lines.read_bytes()
        monkeypatch.setattr(
            sys, "argv", ["geoaware", "score", str(out), "--json", "--csv", str(s3.url("a.csv"))]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        assert json.loads(capsys.readouterr().out)["overall"]
        assert s3.url("a.csv").read_text().startswith("scope")
