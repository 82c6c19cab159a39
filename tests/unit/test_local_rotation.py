"""Rotated weights: an orthogonal matrix that leaves a model's function as it is."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.engines.local.native.rotation import lanes_of, rotated

SIZES = [1, 2, 3, 6, 8, 15, 16, 48, 64, 80, 96, 576, 688]


@given(size=st.sampled_from(SIZES), mixes_all=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_rotation_keeps_products_and_undoes_itself(size: int, mixes_all: bool, seed: int) -> None:
    lanes = 1 if mixes_all else lanes_of(size)
    x, y = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(seed)).unbind()
    before = x.clone()
    torch.testing.assert_close(
        rotated(x, lanes) @ rotated(y, lanes).T, x @ y.T, atol=1e-3, rtol=1e-4
    )
    torch.testing.assert_close(rotated(rotated(x, lanes), lanes), x, atol=1e-4, rtol=1e-4)
    assert torch.equal(x, before)


def test_one_large_channel_is_spread_over_all() -> None:
    large = torch.zeros(1536)
    large[7] = 100.0
    assert rotated(large).abs().max() < 8
    assert rotated(large, lanes_of(1536)).abs().max() < 20


def test_it_does_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(2000, 576, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        found = []
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(rotated(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
