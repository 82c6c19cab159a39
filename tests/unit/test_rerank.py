"""Aggregation of step scores and the choice among candidates, against hand-computed values."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import EvaluationSettings
from glore.rerank import AGGREGATES, aggregate, choose


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("final", 0.2),
        ("mean", (0.9 + 0.6 + 0.2) / 3),
        ("weighted_mean", (1 * 0.9 + 2 * 0.6 + 3 * 0.2) / 6),
        ("weighted_mean_literal", 0.9 / 3 + 0.6 / 2 + 0.2 / 1),
        ("min", 0.2),
        ("product", 0.9 * 0.6 * 0.2),
        ("mean_last_two", 0.4),
    ],
)
def test_values_by_hand(how: str, expected: float) -> None:
    assert aggregate((0.9, 0.6, 0.2), how) == pytest.approx(expected)


@pytest.mark.parametrize("how", list(AGGREGATES))
def test_one_step_scores_itself_and_no_step_scores_zero(how: str) -> None:
    assert aggregate((0.7,), how) == pytest.approx(0.7)
    assert aggregate((), how) == 0.0


def test_names_are_those_of_the_settings() -> None:
    assert set(typing.get_args(EvaluationSettings.model_fields["aggregate"].annotation)) == set(
        AGGREGATES
    )


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"final, mean.*got 'median'"):
        aggregate((0.5,), "median")


def test_ties_go_to_the_lowest_index() -> None:
    assert choose((0.3, 0.8, 0.8)) == 1
    assert choose((0.5, 0.5)) == 0
    with pytest.raises(ValueError, match="at least one"):
        choose(())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_all_but_the_literal_formula_stay_within_the_scores(scores: list[float]) -> None:
    for how in set(AGGREGATES) - {"weighted_mean_literal", "product"}:
        assert min(scores) - 1e-9 <= aggregate(scores, how) <= max(scores) + 1e-9
    assert aggregate(scores, "product") <= min(scores) + 1e-9
    assert scores[choose(scores)] == max(scores)
