from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoaware.apps.transfer.calibration import SHIPPED, Calibration, fit, shipped
from geoaware.apps.transfer.vote import Evidence

RULE = Calibration(0.5, 4.0, 8.0, -3.0, "by hand")


def evidence(mass: list[float], peak: list[float], margin: list[float]) -> Evidence:
    return Evidence(*(torch.tensor(each) for each in (mass, peak, margin)))


def test_probability_by_hand() -> None:
    # 0.5 ln(0.8 / 0.2) + 4 x 0.5 + 8 x 0.1 - 3 = 0.5 x 1.386294 - 0.2
    found = RULE.probability(evidence([0.8], [0.5], [0.1]))
    assert found[0] == pytest.approx(1 / (1 + math.exp(-(0.5 * math.log(4) - 0.2))))


def test_a_mass_of_nothing_or_all_is_finite() -> None:
    found = RULE.probability(evidence([0.0, 1.0], [0.5, 0.5], [0.1, 0.1]))
    assert 0 < found[0] < found[1] < 1


SHARE = st.floats(0, 1, width=32)


@given(SHARE, SHARE, SHARE, SHARE, st.sampled_from(sorted(SHIPPED)))
def test_more_evidence_is_never_less_probable(
    low: float, high: float, peak: float, margin: float, sources: int
) -> None:
    rule, (low, high) = SHIPPED[sources], sorted((low, high))
    for less, more in (
        (evidence([low], [peak], [margin]), evidence([high], [peak], [margin])),
        (evidence([peak], [low], [margin]), evidence([peak], [high], [margin])),
        (evidence([peak], [margin], [low]), evidence([peak], [margin], [high])),
    ):
        assert rule.probability(less)[0] <= rule.probability(more)[0]


def test_shipped_is_the_nearest_in_ratio() -> None:
    assert set(SHIPPED) == {1, 5, 20}
    wanted = {0: 1, 1: 1, 2: 1, 3: 5, 5: 5, 9: 5, 11: 20, 20: 20, 1000: 20}
    assert {count: shipped(count) for count in wanted} == {
        count: SHIPPED[each] for count, each in wanted.items()
    }
    for each in SHIPPED.values():
        assert min(each.mass, each.peak, each.margin) >= 0
        assert "lspet" in each.origin


def test_without_outcomes_nothing_changes() -> None:
    same = RULE.adapted([], [], "none")
    assert (same.mass, same.peak, same.margin, same.intercept) == pytest.approx(
        (0.5, 4.0, 8.0, -3.0), abs=1e-4
    )


def test_adapted_finds_shift_and_stretch() -> None:
    rng = np.random.default_rng(0)
    given_odds = rng.normal(size=20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-(-1.0 + 0.5 * given_odds)))
    found = RULE.adapted(given_odds.tolist(), truth.tolist(), "drawn")
    assert found.mass == pytest.approx(0.5 * 0.5, abs=0.03)
    assert found.margin == pytest.approx(0.5 * 8, abs=0.4)
    assert found.intercept == pytest.approx(0.5 * -3 - 1, abs=0.2)
    assert found.origin == "drawn"


def test_few_outcomes_change_little_and_never_turn_it_round() -> None:
    one = RULE.adapted([0.0], [True], "one")
    assert 0 < one.intercept - RULE.intercept < 0.5
    # The more probable, the more wrong: the stretch stays at 0, never below.
    opposite = RULE.adapted([-3.0, 3.0] * 500, [True, False] * 500, "opposite")
    assert opposite.mass == pytest.approx(0, abs=1e-6)
    assert opposite.mass >= 0


def test_fit_finds_the_weights() -> None:
    rng = np.random.default_rng(1)
    count = 40_000
    drawn = evidence(*(rng.uniform(0.05, 0.95, count).astype(np.float32).tolist() for _ in range(3)))
    truth = rng.random(count) < RULE.probability(drawn)
    found = fit([drawn], [truth.tolist()], ["one"], "drawn")
    assert found.mass == pytest.approx(0.5, abs=0.1)
    assert found.peak == pytest.approx(4.0, abs=0.4)
    assert found.margin == pytest.approx(8.0, abs=0.6)
    assert found.intercept == pytest.approx(-3.0, abs=0.4)


def test_fit_keeps_weights_from_falling_below_zero() -> None:
    rng = np.random.default_rng(2)
    drawn = evidence(*(rng.uniform(0.05, 0.95, 2000).astype(np.float32).tolist() for _ in range(3)))
    found = fit([drawn], [(drawn.peak < 0.5).tolist()], ["one"], "backwards")
    assert found.peak == 0


def test_groups_count_alike_and_have_their_own_level() -> None:
    """Both kinds obey the same weights at levels -5 and -1; the larger group does not pull the mean."""
    rng = np.random.default_rng(3)
    drawn, right = [], []
    for count, level in ((30_000, -5.0), (10_000, -1.0)):
        rule = Calibration(0.5, 4.0, 8.0, level, "")
        drawn.append(
            evidence(*(rng.uniform(0.05, 0.95, count).astype(np.float32).tolist() for _ in range(3)))
        )
        right.append((rng.random(count) < rule.probability(drawn[-1])).tolist())
    found = fit(drawn, right, ["a", "b"], "drawn")
    assert found.margin == pytest.approx(8.0, abs=0.8)
    assert found.intercept == pytest.approx(-3.0, abs=0.5)
