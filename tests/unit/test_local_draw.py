"""Noise and drawing: exact, keyed by (seed, position), distributed as the model says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.engines.local.draw import DrawSettings, draw, draw_each
from glore.engines.local.noise import uniforms
from glore.errors import EngineError

MASK = (1 << 64) - 1


def splitmix(seed: int, position: int) -> float:
    """The slow twin of `uniforms`, in Python integers."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    return (mix((mix((seed + golden) & MASK) + (position + 1) * golden) & MASK) >> 40) * 2.0**-24


@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 100_000)), min_size=1, max_size=20)
)
@settings(max_examples=50, deadline=None)
def test_noise_depends_on_seed_and_position_alone(pairs: list[tuple[int, int]]) -> None:
    got = uniforms(
        np.array([s for s, _ in pairs], np.uint64), np.array([p for _, p in pairs], np.int64)
    )
    assert got.tolist() == [splitmix(s, p) for s, p in pairs]


def test_noise_is_uniform_over_seeds_and_over_positions() -> None:
    n = 20_000
    for seeds, positions in ((np.arange(n), np.zeros(n)), (np.full(n, 12345), np.arange(n))):
        values = uniforms(seeds.astype(np.uint64), positions.astype(np.int64))
        counts = np.histogram(values, bins=50, range=(0, 1))[0]
        chi_square = float(((counts - n / 50) ** 2 / (n / 50)).sum())
        assert 20 < chi_square < 95  # 49 degrees of freedom: 99.99 % of all draws
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.03


def plain(n: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> DrawSettings:
    return DrawSettings(
        np.full(n, temperature, np.float32),
        np.full(n, top_k, np.int64),
        np.full(n, top_p, np.float32),
    )


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1.0, 0, 1.0, [0.1, 0.4, 0.0, 0.3, 0.2]),
        (0.5, 0, 1.0, [0.01 / 0.3, 0.16 / 0.3, 0.0, 0.09 / 0.3, 0.04 / 0.3]),
        (1.0, 2, 1.0, [0.0, 4 / 7, 0.0, 3 / 7, 0.0]),
        (1.0, 0, 0.5, [0.0, 4 / 7, 0.0, 3 / 7, 0.0]),
        (1.0, 0, 0.01, [0.0, 1.0, 0.0, 0.0, 0.0]),
        (1.0, 3, 0.7, [0.0, 4 / 7, 0.0, 3 / 7, 0.0]),
    ],
)
def test_draws_follow_the_filtered_distribution(
    temperature: float, top_k: int, top_p: float, expected: list[float]
) -> None:
    n = 20_000
    logits = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2]).log().expand(n, 5)
    noise = uniforms(np.arange(n, dtype=np.uint64), np.zeros(n, np.int64))
    counts = np.bincount(
        draw(logits, noise, plain(n, temperature, top_k, top_p)).numpy(), minlength=5
    )
    probs = np.array(expected)
    assert counts[probs == 0].sum() == 0
    possible = probs > 0
    chi_square = float(
        ((counts[possible] - n * probs[possible]) ** 2 / (n * probs[possible])).sum()
    )
    assert chi_square < 21.1  # at most 3 degrees of freedom: 99.99 %


def test_the_ends_of_the_unit_interval_never_draw_the_impossible() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, 4)
    ends = np.array([0.0, 1 - 2.0**-24], np.float32)
    assert draw(logits, ends, plain(2)).tolist() == [1, 2]


def test_greedy_takes_the_first_of_equals_and_mixes_with_warm_rows() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    mixed = DrawSettings(
        np.array([0, 1], np.float32), np.zeros(2, np.int64), np.ones(2, np.float32)
    )
    assert draw(logits, np.array([0.9, 0.9], np.float32), mixed).tolist() == [1, 3]
    assert draw(logits, np.array([0.9, 0.9], np.float32), plain(2, temperature=0.0)).tolist() == [
        1,
        0,
    ]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 11])
def test_completions_of_one_row_draw_as_from_rows_of_their_own(n: int) -> None:
    rng = np.random.default_rng(n)
    logits, row, noise = (
        torch.from_numpy(rng.standard_normal((3, 7)).astype(np.float32)),
        rng.integers(0, 3, n),
        rng.random(n),
    )
    noise = noise.astype(np.float32)
    how = DrawSettings(
        rng.choice([0, 1], n).astype(np.float32),
        rng.integers(0, 4, n),
        rng.choice([0.5, 1], n).astype(np.float32),
    )
    assert draw_each(logits, row, noise, how).tolist() == [
        int(
            draw(
                logits[[r]],
                noise[[c]],
                DrawSettings(how.temperature[[c]], how.top_k[[c]], how.top_p[[c]]),
            )[0]
        )
        for c, r in enumerate(row)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_logits_are_an_error(temperature: float) -> None:
    with pytest.raises(EngineError, match="NaN"):
        draw(
            torch.tensor([[0.0, float("nan")]]), np.array([0.5], np.float32), plain(1, temperature)
        )
