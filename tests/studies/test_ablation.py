from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from geoaware.evaluation.comparison import judge
from geoaware.evaluation.predictions import Header, read, record_line
from geoaware.evaluation.statistics import Estimate
from geoaware.features.refined import RefinedExtractor
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.errors import InputError
from geoaware.studies import ablation, trained
from geoaware.studies.ablation import ablate
from geoaware.studies.ablation_table import (
    FULL,
    HEADLINE,
    ROWS,
    Ablation,
    Figure,
    SetFigures,
    choose_rows,
    compare,
    paper_verdict,
)
from geoaware.studies.metrics import METRICS, pair_values
from geoaware.studies.trained import Trainer
from geoaware.training.post_processor.config import Flips, TrainConfig
from tests.training.tiny import config

pytest.importorskip("efficientnet_lite_pytorch")

ASKED = ["without window", "sparse only"]
"""Two trainings a seed: "without window" has the weights of "full"."""


def small(data: Path, cache: Path, **changes) -> TrainConfig:
    """Three steps, compared on the drawn faces of both splits."""
    chosen = {
        "stages__0__steps": 3,
        "save_every": 1,
        "matching": {"window": 3},
        "validation__data": [
            {"name": "coco", "root": ".", "split": split, "options": {"across": True}}
            for split in ("val", "train")
        ],
        "validation__pairs": 6,
        **changes,
    }
    return config(data, cache, **chosen)


@pytest.fixture(scope="module")
def finished(data, cache, tmp_path_factory) -> tuple[Path, Ablation]:
    """An ablation that ran through; tests leave it as it is."""
    out = tmp_path_factory.mktemp("ablation")
    return out, ablate(small(data, cache), out, seeds=2, rows=ASKED)


def no_training(*_: object, **__: object) -> None:
    raise AssertionError("trained again")


def contents(folder: Path) -> dict[str, bytes]:
    """What must not change: weights and predictions."""
    paths = sorted([*folder.rglob("faces-*"), *folder.rglob("model.safetensors")])
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_rows_in_the_order_of_the_table() -> None:
    assert [row.name for row in ROWS] == [
        "full",
        "without dense",
        "without flips",
        "without noise and dropout",
        "without window",
        "sparse only",
    ]
    assert [row.trained_as for row in ROWS] == [
        "full",
        "without dense",
        "without flips",
        "without noise and dropout",
        "full",
        "sparse only",
    ]
    assert [row.mode for row in ROWS] == ["window"] * 4 + ["soft", "argmax"]


def test_what_each_row_leaves_out(tmp_path) -> None:
    given = config(tmp_path, tmp_path, network={"width": 128, "grid": 8, "dropout": 0.3})
    left = [row.configure(given, 7) for row in ROWS]
    assert [(c.loss.dense, c.loss.noise, c.network.dropout, c.flips.used) for c in left] == [
        (1.0, 0.1, 0.3, True),
        (0.0, 0.1, 0.3, False),
        (1.0, 0.1, 0.3, False),
        (1.0, 0.0, 0.0, True),
        (1.0, 0.1, 0.3, True),
        (0.0, 0.0, 0.0, False),
    ]
    assert left[0].flips == given.flips
    for each in left:
        assert each.seed == 7
        assert not each.validation.data
        # Nothing else differs from what was given.
        same = {"loss": given.loss, "flips": given.flips, "network": given.network, "seed": given.seed}
        assert each.model_copy(update={**same, "validation": given.validation}) == given


def test_the_paper_has_every_row_below_full() -> None:
    assert paper_verdict(FULL) == "not distinguishable"
    assert {paper_verdict(row) for row in ROWS[1:]} == {"worse"}
    for row in ROWS:
        figures = row.paper
        assert figures["pck_dagger"] + figures["miss"] + figures["swap"] == pytest.approx(100, abs=0.11)
        assert figures["swap_lr"] < figures["swap"]
        assert set(figures) <= {metric.key for metric in METRICS}


def test_rows_are_chosen_by_name() -> None:
    assert choose_rows() == ROWS
    assert choose_rows([]) == (FULL,)
    # Full is always there, the table's order is kept, and a hyphen is as good as a space.
    assert choose_rows(["sparse only", "Without-Dense ", "sparse-only"]) == (ROWS[0], ROWS[1], ROWS[5])
    with pytest.raises(
        InputError, match=r"there is no row 'without losses'; choose full, without dense, .*sparse only"
    ):
        choose_rows(["full", "without losses"])


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.01, 0.02, "better", "worse"),
        (-0.02, -0.01, "worse", "better"),
        (-0.01, 0.02, "not distinguishable", "not distinguishable"),
        (0.0, 0.0, "not distinguishable", "not distinguishable"),
        (math.nan, math.nan, "not distinguishable", "not distinguishable"),
    ],
)
def test_verdicts(low, high, higher, lower) -> None:
    difference = Estimate((low + high) / 2, low, high)
    assert judge(difference, higher_is_better=True) == higher
    assert judge(difference, higher_is_better=False) == lower


def test_rows_are_compared_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    full = rng.uniform(0.2, 0.8, size=(3, 40, len(METRICS)))
    values = {
        "full": full,
        # Every figure is higher by about 0.1: good for PCK, bad for mistakes.
        "without dense": full + rng.normal(0.1, 0.01, size=full.shape),
        "without flips": full + rng.normal(0.0, 0.2, size=full.shape) * [[[1]], [[-1]], [[0]]],
    }
    ends = [f"a{row}" for row in range(40)], [f"b{row}" for row in range(40)]
    found = compare(values, *ends)
    assert list(found) == list(values)
    for metric in METRICS:
        zero, above, noisy = (found[name][metric.key] for name in values)
        assert zero.difference == Estimate(0.0, 0.0, 0.0)
        assert zero.verdict == noisy.verdict == "not distinguishable"
        assert above.level.value == pytest.approx(zero.level.value + above.difference.value, abs=1e-5)
        assert above.difference.value == pytest.approx(0.1, abs=0.01)
        # What the pairs have in common is not in the interval of the difference.
        assert above.difference.margin < above.level.margin / 5
        good = metric.key.startswith(("pck", "geometry_aware_pck"))
        assert above.verdict == ("better" if good else "worse")


def test_values_of_pairs_by_hand(tmp_path) -> None:
    """Base 100; ears at (0, 0) and (50, 0), which are flip partners; the nose at (0, 50)."""
    targets = {"0": [0.0, 0.0], "1": [50.0, 0.0], "2": [0.0, 50.0]}
    schema = {
        "names": ["left ear", "right ear", "nose"],
        "flip_pairs": [[0, 1]],
        "subgroups": {"ear": [0, 1]},
    }

    def record(name: str, ids: list[int], predicted: list[list[float]]) -> str:
        return record_line(
            {
                "pair": name,
                "category": "cat",
                "source": "s",
                "target": "t",
                "keypoint_ids": ids,
                "predicted": predicted,
                "truth": [targets[str(each)] for each in ids],
                "size": 100.0,
                "geometry_aware": [each < 2 for each in ids],
                "pose": "identity",
                "azimuth_difference": None,
                "target_keypoints": targets,
            }
        )

    lines = [
        # Left ear found 4 away, right ear on the left one, nose 15 away from itself and from all.
        record("z", [0, 1, 2], [[4.0, 0.0], [1.0, 0.0], [0.0, 35.0]]),
        record("a", [2], [[0.0, 57.0]]),
    ]
    header = Header(protocol="paper", pairs=2, schemas={"cat": schema})
    path = tmp_path / "p.jsonl"
    path.write_text(header.to_line() + "".join(lines), encoding="utf-8")
    values = pair_values(path)
    keys = [metric.key for metric in METRICS]
    first, second = (dict(zip(keys, row, strict=True)) for row in values.tolist())
    assert first == pytest.approx(
        {
            "pck@0.05": 1 / 3,
            "pck@0.1": 1 / 3,
            "geometry_aware_pck@0.05": 1 / 2,
            "geometry_aware_pck@0.1": 1 / 2,
            "jitter": 1 / 3,
            "miss": 1 / 3,
            "swap": 1 / 3,
            "swap_lr": 1 / 3,
            "pck_dagger": 1 / 3,
        }
    )
    assert (second["pck@0.05"], second["pck@0.1"], second["pck_dagger"]) == (0, 1, 1)
    assert math.isnan(second["geometry_aware_pck@0.1"])


def made(**differences: tuple[float, float, float]) -> Ablation:
    """One data set, "dogs val", whose headline differences are given."""
    rows = [FULL, *(row for row in ROWS if row.name.replace(" ", "_") in differences)]
    figures = {}
    for row in rows:
        given = differences.get(row.name.replace(" ", "_"), (0.0, 0.0, 0.0))
        level, apart = Estimate(0.5 + given[0], 0.4 + given[0], 0.6 + given[0]), Estimate(*given)
        figures[row.name] = {
            metric.key: Figure(level, apart, judge(apart, metric.higher_is_better)) for metric in METRICS
        }
    return Ablation(tuple(rows), (0, 1, 2), (SetFigures("dogs val", "paper", 12, 6, figures),))


def test_sentences() -> None:
    found = made(
        without_dense=(-0.046, -0.06, -0.032),
        without_flips=(0.01, 0.002, 0.018),
        sparse_only=(-0.1, -0.3, 0.1),
    )
    *rows, order = found.sentences()
    assert rows == [
        "without dense, by PCK@0.10: worse than full on dogs val (-4.6 points, 95 % -6.0 to -3.2). "
        "The paper has it worse (78.3 against 82.9 on SPair-71k): borne out on dogs val.",
        "without flips, by PCK@0.10: better than full on dogs val (+1.0 points, 95 % +0.2 to +1.8). "
        "The paper has it worse (81.5 against 82.9 on SPair-71k): contradicted on dogs val.",
        "sparse only, by PCK@0.10: not distinguishable from full on dogs val (-10.0 points, 95 % -30.0 to "
        "+10.0). The paper has it worse (74.6 against 82.9 on SPair-71k): left open on dogs val.",
    ]
    assert order == (
        "Order by PCK@0.10, best first. dogs val: without flips, full, without dense, sparse only; "
        "paper: full, without flips, without dense, sparse only."
    )


def test_a_whole_ablation(finished) -> None:
    out, found = finished
    assert [row.name for row in found.rows] == ["full", "without window", "sparse only"]
    assert found.seeds == (0, 1)
    assert [(each.name, each.pairs, each.protocol) for each in found.sets] == [
        ("faces val", 6, "paper"),
        ("faces train", 6, "paper"),
    ]
    runs = sorted(str(path.parent.relative_to(out)) for path in out.rglob("config.yaml"))
    assert runs == ["full/seed0", "full/seed1", "sparse-only/seed0", "sparse-only/seed1"]
    for seed in (0, 1):
        full, baseline = out / f"full/seed{seed}", out / f"sparse-only/seed{seed}"
        modes = {path.name.split("-")[-1] for path in full.glob("faces-*.jsonl")}
        assert modes == {"window.jsonl", "soft.jsonl"}
        assert len(list(baseline.glob("faces-*-argmax.jsonl"))) == 2
        assert not (full / "best").exists()
    # The figures are those of the files, and every pair counts the same.
    for name, place in (("faces val", 0), ("faces train", 1)):
        files = [out / f"full/seed{seed}/{name.replace(' ', '-')}-window.jsonl" for seed in (0, 1)]
        wanted = np.nanmean([pair_values(path) for path in files], axis=(0, 1))
        levels = [found.sets[place].figures["full"][metric.key].level.value for metric in METRICS]
        assert levels == pytest.approx(wanted.tolist(), abs=1e-6)


def test_seeds_and_parts_make_other_weights(finished) -> None:
    out, _ = finished
    weights = {(out / run / "last" / "model.safetensors").read_bytes()
               for run in ("full/seed0", "full/seed1", "sparse-only/seed0", "sparse-only/seed1")}  # fmt: skip
    assert len(weights) == 4


def test_what_is_finished_is_not_done_again(finished, data, cache, monkeypatch) -> None:
    out, found = finished
    before = contents(out)
    monkeypatch.setattr(trained, "train", no_training)
    again = ablate(small(data, cache), out, seeds=2, rows=ASKED)
    assert again == found
    assert contents(out) == before
    # A row less needs nothing new either.
    fewer = ablate(small(data, cache), out, seeds=2, rows=["sparse only"])
    assert fewer.sets[0].figures["sparse only"] == found.sets[0].figures["sparse only"]


@pytest.mark.parametrize("stop", ["training", "predicting"])
def test_an_interrupted_ablation_goes_on(finished, data, cache, tmp_path, stop) -> None:
    out, found = finished

    def interrupt(what: str, done: int, total: int, note: str = "") -> None:
        wanted = "sparse only, seed 0, training" if stop == "training" else "full, seed 1, faces-train-soft"
        if what.endswith(wanted) and done == 2:
            raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        ablate(small(data, cache), tmp_path / "a", seeds=2, rows=ASKED, tell=interrupt)
    done = set(contents(tmp_path / "a"))
    assert done < set(contents(out)) | {"full/seed1/faces-train-soft.jsonl.part"}

    def follow(what: str, done: int, total: int, note: str = "") -> None:
        said.append(f"{what} {done}")

    again = ablate(small(data, cache), tmp_path / "a", seeds=2, rows=ASKED, tell=follow)
    assert again == found
    assert contents(tmp_path / "a") == contents(out)
    steps = [each for each in said if ", training " in each]
    if stop == "training":
        # Two of three steps were kept, and the run before was not touched.
        assert [each for each in steps if "seed 0" in each] == ["run 2 of 4: sparse only, seed 0, training 3"]
    else:
        assert [each for each in steps if "full" in each or "seed 0" in each] == []


def test_a_folder_of_another_ablation(finished, data, cache) -> None:
    out, _ = finished
    before = contents(out)
    with pytest.raises(InputError, match=r"belongs to another run \(different: loss\.noise\)"):
        ablate(small(data, cache, loss__noise=0.2), out, seeds=1, rows=ASKED)
    with pytest.raises(InputError, match=r"belongs to another run \(different: pairs, hashes\.pairs\)"):
        ablate(small(data, cache, validation__pairs=5), out, seeds=1, rows=["without window"])
    assert contents(out) == before


def test_restart_trains_again(data, cache, tmp_path, monkeypatch) -> None:
    asked = {"seeds": 1, "rows": ["without window"]}
    found = ablate(small(data, cache), tmp_path, **asked)
    changed = small(data, cache, loss__noise=0.2)
    restarts: list[bool] = []
    train = trained.train

    def counted(*given, **options):
        restarts.append(options["restart"])
        return train(*given, **options)

    monkeypatch.setattr(trained, "train", counted)
    other = ablate(changed, tmp_path, restart=True, **asked)
    assert restarts == [True]
    assert other != found
    assert ablate(changed, tmp_path, **asked) == other
    assert len(restarts) == 1


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"validation__data": []}, None, "there is no validation.data in the configuration"),
        ({"loss__sparse": 0.0}, ["without dense"], "loss.sparse is 0; set it above 0"),
        ({"loss__sparse": 0.0}, None, "loss.sparse is 0; set it above 0"),
        (
            {"flips": {"double": 0.0, "single": 0.0, "self": 0.0}},
            ["without flips"],
            "the row 'without flips' would be the same as 'full'",
        ),
        (
            {"loss__noise": 0.0, "network__dropout": 0.0},
            ["without noise and dropout"],
            "the row 'without noise and dropout' would be the same as 'full'",
        ),
        (
            {"matching": {"window": 9}},
            ["without window"],
            "the row 'without window' would be the same as 'full'",
        ),
        ({}, ["without wings"], "there is no row 'without wings'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    data, cache, tmp_path, changes, rows, message
) -> None:
    with pytest.raises(InputError, match=message):
        ablate(small(data, cache, **changes), tmp_path / "out", rows=rows)
    assert not (tmp_path / "out").exists()


def test_at_least_one_seed(data, cache, tmp_path) -> None:
    with pytest.raises(InputError, match="at least one seed is needed, got 0"):
        ablate(small(data, cache), tmp_path / "out", seeds=0)


def test_sets_called_the_same_are_numbered(data, cache, tmp_path) -> None:
    twice = [
        {"name": "coco", "root": ".", "split": "val", "options": {"across": each}} for each in (True, False)
    ]
    given = small(data, cache, validation__data=twice, stages__0__steps=1)
    found = ablate(given, tmp_path, seeds=1, rows=["full"])
    assert [each.name for each in found.sets] == ["faces val 1", "faces val 2"]
    assert len(list(tmp_path.rglob("*-window.jsonl"))) == 2
    assert found.sentences() == [
        f"Order by {HEADLINE.label}, best first. faces val 1: full; faces val 2: full; paper: full."
    ]


def test_the_released_preset_is_ablated_as_it_runs(data, cache, tmp_path) -> None:
    given = small(data, cache, preset="released", stages__0__steps=1)
    found = ablate(given, tmp_path, seeds=1, rows=["full"])
    kept = (tmp_path / "full/seed0/config.yaml").read_text(encoding="utf-8")
    assert "target: flow" in kept
    assert ablate(given, tmp_path, seeds=1, rows=["full"]) == found
    # Its own flips are off but for the double and the self flip.
    alone = replace(FULL).configure(given.as_released(), 0).flips
    assert alone == Flips(single=0.0)


def blended(data: Path, cache: Path, **changes) -> TrainConfig:
    """Refined maps of 4 cells a side, blended with the extractor's of 8."""
    network = {"width": 128, "grid": 4}
    return small(data, cache, **{"network": network, "matching": {"window": 5, "blend": 0.5}, **changes})


def test_rows_are_matched_in_the_blend_of_the_configuration(data, cache, tmp_path) -> None:
    given = blended(data, cache, stages__0__steps=1)
    ablate(given, tmp_path, seeds=1, rows=["without window"])
    paths = sorted(tmp_path.rglob("faces-*.jsonl"))
    assert [read(path)[0].settings["blend"] for path in paths] == [0.5] * 4
    # On the finer grid a window of 5 is not the whole map, so the rows differ.
    assert len({path.read_bytes().partition(b"\n")[2] for path in paths}) == 4


@pytest.mark.parametrize(("window", "blend", "same"), [(5, 1.0, True), (5, 0.5, False), (8, 0.5, True)])
def test_the_whole_map_is_that_which_is_matched(data, cache, tmp_path, window, blend, same) -> None:
    given = blended(data, cache, matching={"window": window, "blend": blend})
    trainer = Trainer(given, "cpu")
    network = PostProcessor(**asdict(replace(given.network, channels=(trainer.extractor.layout.channels,))))
    grid = ablation._matched_grid(trainer)
    assert grid == RefinedExtractor(trainer.extractor, network, blend).layout.grid == (4 if blend == 1 else 8)
    (_, row) = choose_rows(["without window"])
    assert ablation._same_as_full(row, trainer) == same
