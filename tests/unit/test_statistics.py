"""Intervals and tests, against values computed by other means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.statistics import Difference, Resampler, mcnemar_p, never_certain, ratio, wilson


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81/263 and 15/148, method "score without continuity correction".
    assert wilson(81, 263).low == pytest.approx(0.2553, abs=5e-5)
    assert wilson(81, 263).high == pytest.approx(0.3662, abs=5e-5)
    assert wilson(15, 148).low == pytest.approx(0.0624, abs=5e-5)
    assert wilson(15, 148).high == pytest.approx(0.1605, abs=5e-5)
    assert (wilson(0, 20).low, wilson(20, 20).high) == (0.0, 1.0)
    assert wilson(0, 0).value is None


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case):
    k, n = case
    found, mirrored = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(8, 1) == pytest.approx(2 * (1 + 9) / 512)
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p(3, 3) == 1.0
    # The two ways of adding up the tail meet where one takes over from the other.
    exact = 2 * sum(math.comb(1001, k) for k in range(461)) / 2**1001
    assert mcnemar_p(541, 460) == pytest.approx(exact, rel=1e-9)


def test_bootstrap_is_deterministic_and_near_the_normal_interval():
    rng = np.random.default_rng(1)
    values = list((rng.random(400) < 0.3).astype(float))
    units = [str(i) for i in range(400)]
    first, again = (Resampler(units, seed=5).mean(units, values) for _ in range(2))
    assert first == again
    share = sum(values) / 400
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert first.value == pytest.approx(share)
    assert first.low == pytest.approx(share - half, abs=0.008)
    assert first.high == pytest.approx(share + half, abs=0.008)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(2)
    flags = (rng.random(100) < 0.5).astype(float)
    clusters = [str(i // 10) for i in range(1000)]
    copies = [float(flags[i // 10]) for i in range(1000)]
    honest = Resampler(clusters).mean(clusters, copies)
    alone = [str(i) for i in range(1000)]
    naive = Resampler(alone).mean(alone, copies)
    assert honest.value == naive.value
    assert honest.high - honest.low > 2.5 * (naive.high - naive.low)


def test_paired_difference_counts_and_sign():
    units = ["a", "b", "c", "d", "e"]
    found = Resampler(units).paired(units, [1, 1, 1, 0, 1], [0, 1, 0, 1, 1])
    assert (found.value, found.gained, found.lost, found.p) == (pytest.approx(0.2), 2, 1, 1.0)
    assert not found.excludes_zero
    assert Resampler(units).paired(units, [1] * 5, [0] * 5).excludes_zero


def test_no_p_value_where_units_hang_together_or_are_no_flags():
    assert Resampler(["a", "b"]).paired(["a", "a"], [1, 0], [0, 0]).p is None
    assert Resampler(["a", "b"]).paired(["a", "b"], [0.5, 0], [0, 0]).p is None
    assert Resampler(["a"]).paired([], [], []) == Difference(None, None, None, 0, 0, 0, None)


def test_undefined_draws_are_left_out():
    units = ["a", "b", "c"]
    columns = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = Resampler(units).estimate(units, columns, lambda s: s[..., 0] / s[..., 1])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    nothing = Resampler(units).estimate(units, np.zeros((3, 2)), lambda s: s[..., 0] / s[..., 1])
    assert nothing.value is None
    assert nothing.n == 3


def test_agreement_of_all_is_no_certainty():
    units = [str(i // 3) for i in range(12)]  # four questions of three steps
    keeping = Resampler(units, keeps=True)
    none = never_certain(keeping.mean(units, [0.0] * 12))
    assert (none.value, none.n) == (0.0, 12)
    assert (none.low, none.high) == (0.0, wilson(0, 4).high)
    every = never_certain(keeping.mean(units, [1.0] * 12))
    assert (every.low, every.high) == (wilson(4, 4).low, 1.0)
    # Of the bad steps, which two of the questions have, none is called good.
    bad = [float(u in "01") for u in units]
    columns = np.stack([np.zeros(12), np.array(bad)], axis=1)
    called = never_certain(keeping.estimate(units, columns, ratio))
    assert called.high == wilson(0, 2).high
    other = keeping.mean(units, [0.5] * 12)
    assert never_certain(other) is other
    assert never_certain(keeping.share(["0", "1"], [1.0, 1.0])).low == wilson(2, 2).low
