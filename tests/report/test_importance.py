"""The importance of hyper-parameters that the report shows: what it finds, and what it does not make up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as oracle

from harness.report.tables._page._importance import importance


def test_what_moves_the_scores_stands_out_and_the_rest_stays_within_chance():
    rng = np.random.default_rng(0)
    params = [
        {"lr": float(10**x), "d": int(rng.choice([32, 64])), "word": "ab"[k % 2]}
        for k, x in enumerate(rng.uniform(-4, -1, 40))
    ]
    scores = [0.05 + 0.01 * np.log10(own["lr"]) + 0.001 * rng.normal() for own in params]
    first, *rest = importance(params, scores)
    assert (first.name, first.share > 0.7, first.direction > 0.9) == ("lr", True, True)
    assert {item.name for item in rest} == {"d", "word"}
    assert all(item.share <= item.chance for item in rest)
    assert next(item for item in rest if item.name == "word").direction is None


def test_the_share_is_epsilon_squared_and_the_direction_is_spearmans():
    rng = np.random.default_rng(1)
    params = [{"arm": "xyz"[k % 3], "lr": float(v)} for k, v in enumerate(rng.uniform(0, 1, 21))]
    scores = [("xyz".index(own["arm"]) + rng.normal()) / 10 for own in params]
    found = {item.name: item for item in importance(params, scores)}
    arms = [[s for own, s in zip(params, scores, strict=True) if own["arm"] == arm] for arm in "xyz"]
    F = oracle.f_oneway(*arms).statistic
    assert found["arm"].share == pytest.approx((F - 1) / (F + (21 - 3) / (3 - 1)), rel=1e-9)
    assert found["lr"].direction == pytest.approx(oracle.spearmanr([own["lr"] for own in params], scores).statistic)


def test_nothing_is_said_of_few_trials_equal_scores_or_fixed_parameters():
    params = [{"lr": k / 10, "d": 64} for k in range(8)]
    assert importance(params[:5], list(range(5))) == []
    assert importance(params, [0.1] * 8) == []
    assert [item.name for item in importance(params, list(range(8)))] == ["lr"]


def test_a_parameter_that_some_trials_lack_is_a_value_of_its_own():
    params = [{"fusion": "gate", "std": 0.1 * k} if k % 2 else {"fusion": "none"} for k in range(12)]
    scores = [0.2 + 0.001 * k if k % 2 else 0.1 + 0.001 * k for k in range(12)]
    found = {item.name: item for item in importance(params, scores)}
    assert found["fusion"].share > 0.9
    assert found["std"].direction is None
