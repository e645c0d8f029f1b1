from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from geoaware.evaluation.statistics import Estimate, estimate
from tests.reference.bootstrap import variance_of_mean

T2 = 4.302653  # Student's t, 97.5 %, two degrees of freedom


def one(values, source=None, target=None, **options) -> Estimate:
    """Of one figure of one training."""
    values = np.asarray(values, dtype=np.float64)
    source = [f"s{row}" for row in range(len(values))] if source is None else list(map(str, source))
    target = [f"t{row}" for row in range(len(values))] if target is None else list(map(str, target))
    (found,) = estimate(values[None, :, None], source, target, **options)
    return found


def network(images: int, pairs: int, seed: int, apart: float = 1.0):
    """Pairs of random images, and values with a part of the source, of the target and of the pair."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, images, pairs)
    target = (source + rng.integers(1, images, pairs)) % images
    values = rng.normal(size=images)[source] + rng.normal(size=images)[target]
    return values + apart * rng.normal(size=pairs), source, target


def test_pairs_of_images_of_their_own_are_independent_observations() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=200)
    found = one(values, draws=5000)
    assert found.value == pytest.approx(values.mean(), abs=1e-6)
    standard_error = values.std(ddof=1) / math.sqrt(200)
    assert found.margin == pytest.approx(student.ppf(0.975, 399) * standard_error, rel=0.1)


def test_where_only_the_target_counts_the_number_of_targets_decides() -> None:
    of_target = np.random.default_rng(1).normal(size=25)
    source, target = np.repeat(np.arange(100, 140), 25), np.tile(np.arange(25), 40)
    found = one(of_target[target], source, target, draws=5000)
    true = of_target.std() / 5  # 25 targets, not 1,000 pairs
    assert found.margin == pytest.approx(student.ppf(0.975, 64) * true, rel=0.1)
    taken_as_independent = one(of_target[target], draws=500).margin
    assert found.margin > 5 * taken_as_independent


@pytest.mark.parametrize("apart", [0.0, 1.0, 4.0])
def test_against_the_slow_reference(apart) -> None:
    values, source, target = network(50, 250, seed=2, apart=apart)
    found = one(values, source, target, draws=5000)
    variance = (found.margin / student.ppf(0.975, 49)) ** 2
    wanted = variance_of_mean(values.tolist(), source.tolist(), target.tolist())
    assert variance == pytest.approx(wanted, rel=0.15)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    shared, alone = 0, 0
    for seed in range(150):
        values, source, target = network(60, 300, seed)
        shared += not one(values, source, target, draws=200).sign
        alone += not one(values, draws=200).sign
    assert 0.90 <= shared / 150 <= 0.99
    assert alone / 150 < 0.80


def test_both_orders_of_two_images_are_one_observation() -> None:
    values = np.random.default_rng(3).normal(size=60)
    left, right = np.arange(60), np.arange(60, 120)
    twice = one(np.tile(values, 2), np.concatenate([left, right]), np.concatenate([right, left]), draws=5000)
    assert twice.margin == pytest.approx(one(values, left, right, draws=5000).margin, rel=0.1)


def test_a_image_with_itself_is_one_observation() -> None:
    values = np.random.default_rng(4).normal(size=80)
    itself = one(values, np.arange(80), np.arange(80), draws=5000)
    # One image a pair and not two: drawing pairs and drawing images is the same.
    assert itself.margin == pytest.approx(
        student.ppf(0.975, 79) * values.std(ddof=1) / math.sqrt(80), rel=0.1
    )


def test_trainings_by_hand() -> None:
    values = np.broadcast_to(np.array([0.1, 0.2, 0.3])[:, None, None], (3, 10, 1))
    (found,) = estimate(values, list("abcdefghij"), list("ABCDEFGHIJ"))
    # All pairs agree, so only the spread of the trainings is left: 0.1 / sqrt(3).
    assert found.value == pytest.approx(0.2)
    assert found.margin == pytest.approx(T2 * 0.1 / math.sqrt(3), abs=1e-5)
    (alone,) = estimate(values[:1], list("abcdefghij"), list("ABCDEFGHIJ"))
    assert alone == Estimate(0.1, 0.1, 0.1)


def test_what_is_equally_hard_in_both_ways_cancels() -> None:
    rng = np.random.default_rng(5)
    hard = np.tile([-10.0, 10.0], 20)[None, :, None]
    better = rng.normal(0.5, 0.1, size=(2, 40, 1))
    ends = [f"a{row}" for row in range(40)], [f"b{row}" for row in range(40)]
    (level,) = estimate(hard + better, *ends)
    (difference,) = estimate((hard + better) - hard, *ends)
    assert level.sign == 0
    assert difference.sign == 1
    assert difference.margin < level.margin / 5


def test_pairs_without_a_value_count_nowhere() -> None:
    values = np.array([[[0.2, 1.0], [0.4, math.nan], [math.nan, math.nan], [0.9, 0.0]]])
    first, second = estimate(values, list("abcd"), list("efgh"))
    assert first.value == pytest.approx(0.5)
    assert second.value == pytest.approx(0.5)
    assert first.margin > 0
    assert second.margin > 0


def test_too_few_pairs_say_nothing() -> None:
    lonely, none = estimate(np.array([[[0.7, math.nan], [math.nan, math.nan]]]), list("ab"), list("cd"))
    assert lonely.value == 0.7
    assert none.value != none.value
    for each in (lonely, none):
        assert math.isnan(each.low)
        assert math.isnan(each.margin)
        assert each.sign == 0
    (empty,) = estimate(np.zeros((2, 0, 1)), [], [])
    assert empty.sign == 0


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.2, 0), (0.0, 0.0, 0)]
)
def test_sign(low, high, sign) -> None:
    assert Estimate((low + high) / 2, low, high).sign == sign


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.01, 100))
def test_moving_and_stretching_moves_and_stretches(seed, by, factor) -> None:
    values, source, target = network(10, 30, seed)
    plain = one(values, source, target, draws=50)
    changed = one(factor * values + by, source, target, draws=50)
    assert changed.low == pytest.approx(factor * plain.low + by, abs=1e-4 * max(factor, 1))
    assert changed.high == pytest.approx(factor * plain.high + by, abs=1e-4 * max(factor, 1))


def test_the_seed_decides() -> None:
    values, source, target = network(20, 60, seed=6)
    assert one(values, source, target) == one(values, source, target)
    assert one(values, source, target).margin != one(values, source, target, seed=1).margin
    # Whatever the images are called.
    assert one(values, source + 1000, target + 1000) == one(values, source, target)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 pairs, 2 sources and 3 targets do not agree"):
        estimate(np.zeros((1, 3, 1)), list("ab"), list("abc"))
    values = np.zeros((2, 2, 1))
    values[1, 0] = math.nan
    with pytest.raises(ValueError, match="a value in some trainings and none in others"):
        estimate(values, list("ab"), list("cd"))
