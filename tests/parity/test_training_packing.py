"""Packed rows against the same rows one by one: the same loss, the same gradients, and no look at a
neighbour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training_parity import rows, run_fit, slow_loss, without_dropout
from torch.nn.functional import scaled_dot_product_attention

from glore.config import TrainSettings
from glore.errors import ConfigError
from glore.training import fit, packed_attention
from glore.training.examples import IGNORED, Row
from glore.training.packing import pack_rows, plan_packed
from glore.training.trainer import Packing, PlannedBatches, PlannedTrainer
from support.tiny_models import tiny_lm, tiny_step_model


def masked_twin(
    query_THD: torch.Tensor,
    key_THD: torch.Tensor,
    value_THD: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scale: float | None,
) -> torch.Tensor:
    """What the GPU's kernel computes, with a mask; like the kernel it leaves out what is beyond
    `longest`.
    """
    at_T = torch.arange(len(query_THD))
    row_T = torch.searchsorted(bounds.long(), at_T, right=True)
    start_T = bounds.long().index_select(0, row_T - 1)
    mask_TT = (row_T[:, None] == row_T) & (at_T[:, None] >= at_T)
    out_HTD = scaled_dot_product_attention(
        *(x.transpose(0, 1)[None] for x in (query_THD, key_THD, value_THD)),
        attn_mask=mask_TT,
        scale=scale,
        enable_gqa=True,
    )[0]
    return torch.where(
        (at_T - start_T < longest)[:, None, None], out_HTD.transpose(0, 1), torch.nan
    )


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200),
    spare=st.integers(0, 100),
    epochs=st.sampled_from([1.0, 2.0, 1.5, 0.3]),
    seed=st.integers(0, 2**31),
    in_order=st.booleans(),
)
def test_every_row_is_packed_once_an_epoch_and_no_batch_overflows(
    lengths: list[int], spare: int, epochs: float, seed: int, in_order: bool
) -> None:
    budget = max(lengths) + spare
    plan = plan_packed(lengths, budget, epochs, 0, seed, in_order)
    assert plan == plan_packed(lengths, budget, epochs, 0, seed, in_order)
    assert all(sum(lengths[i] for i in batch) <= budget for batch in plan)
    counts = np.bincount([i for batch in plan for i in batch], minlength=len(lengths))
    assert counts.max() <= np.ceil(epochs)
    assert counts.min() >= int(epochs)
    whole = plan_packed(lengths, budget, np.ceil(epochs), 0, seed, in_order)
    assert plan == whole[: len(plan)]
    assert (
        plan_packed(lengths, budget, 1.0, len(plan) + 3, seed, in_order)[: len(plan)] == plan
        or epochs % 1
    )


def test_batches_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(60, 400, 3000).tolist()
    plan = plan_packed(lengths, 8192, 1, 0, 7)
    assert sum(lengths) / (len(plan) * 8192) > 0.97
    curriculum = plan_packed(lengths, 8192, 1, 0, 7, in_order=True)
    first, last = (
        np.mean([i for batch in part for i in batch])
        for part in (curriculum[:20], curriculum[-20:])
    )
    assert first < 1000
    assert last > 2000


def test_a_packed_batch_spells_out_its_rows_and_padding() -> None:
    made = [
        Row(np.array(ids, np.int32), np.array([*ids[1:], IGNORED], np.int32))
        for ids in ([5, 6, 7], [8, 9])
    ]
    ids, targets, positions, bounds = pack_rows(made, 0, longest=3, width=12)
    assert ids.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0]]
    assert targets.tolist() == [[6, 7, IGNORED, 9] + [IGNORED] * 8]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0]]
    assert bounds.tolist() == [0, 3, 5, 8, 11, 12]
    assert pack_rows(made, 0, longest=3)[3].tolist() == [0, 3, 5, 8]


def one_step(
    model: torch.nn.Module, made: list[Row], packing: Packing | None, folder: Path
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one batch of all rows, as the trainer computes them."""
    batches = PlannedBatches(made, [tuple(range(len(made)))], 1, 1, 0, packing)
    settings = TrainSettings()
    trainer = PlannedTrainer(
        settings,
        packing,
        model=model,
        args=fit._arguments(settings, folder, 1, 0, True, []),
        train_dataset=batches,
    )
    loss = trainer.compute_loss(model, batches[0])
    loss.backward()
    trainer.close()
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("ours", [False, True], ids=["masks", "kernel"])
@pytest.mark.parametrize("width", [0, 256])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gpt2"])
@pytest.mark.parametrize("classes", [0, 2])
def test_packed_rows_give_the_loss_and_gradients_of_rows_alone(
    architecture: str,
    classes: int,
    width: int,
    ours: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_attention, "varlen", masked_twin)
    made = rows(6, classes)
    if architecture == "mistral" and ours:
        made = [row for row in made if len(row.ids) <= 12]  # its window
    packed, alone = (
        without_dropout((tiny_step_model if classes else tiny_lm)(architecture)) for _ in range(2)
    )
    packed.config.use_cache = False
    if ours:
        packed_attention.use_attention_without_mask(packed)
    loss, gradients = one_step(
        packed, made, Packing(max(len(row.ids) for row in made), width), tmp_path
    )
    slow = slow_loss(alone, made)
    slow.backward()
    assert loss == pytest.approx(slow.item(), rel=1e-5)
    expected = [p.grad for p in alone.parameters() if p.grad is not None]
    assert len(gradients) == len(expected)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-6)


def test_padded_rows_through_our_attention_give_the_gradients_of_rows_alone(tmp_path: Path) -> None:
    made = rows(6)
    padded, alone = tiny_lm(), tiny_lm()
    packed_attention.use_attention_without_mask(padded)
    loss, gradients = one_step(padded, made, None, tmp_path)
    slow = slow_loss(alone, made)
    slow.backward()
    assert loss == pytest.approx(slow.item(), rel=1e-5)
    for a, b in zip(gradients, (p.grad for p in alone.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-6)


def test_equal_rows_weigh_as_often_as_they_occur_when_packed(tmp_path: Path) -> None:
    a, b, *others = rows(5)
    merged = [Row(a.ids, a.targets, 3), b, *others]
    once, often = tiny_lm(), tiny_lm()
    once.config.use_cache = often.config.use_cache = False
    loss, gradients = one_step(once, merged, Packing(40, 0), tmp_path)
    twin, expected = one_step(often, [a, a, a, b, *others], Packing(40, 0), tmp_path)
    assert loss == pytest.approx(twin, rel=1e-5)
    for p, q in zip(gradients, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-6)


def test_a_packed_training_is_one_of_padded_rows(tmp_path: Path) -> None:
    made = rows(8)
    padded = TrainSettings(
        batch_size=8, learning_rate=1e-3, warmup_ratio=0.0, max_steps=3, max_length=64
    )
    a, b = tiny_lm(), tiny_lm()
    first = run_fit(a, made, padded, tmp_path / "a")
    assert run_fit(
        b, made, padded.model_copy(update={"batch_tokens": 256}), tmp_path / "b"
    ) == pytest.approx(first, rel=1e-5)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert (p - q).abs().mean() < 2e-5


@pytest.mark.parametrize("architecture", ["bloom"])
def test_a_model_that_mixes_packed_rows_is_refused(architecture: str, tmp_path: Path) -> None:
    settings = TrainSettings(batch_tokens=64, max_length=64, max_steps=1)
    with pytest.raises(
        ConfigError,
        match="batch_tokens packs rows, and BloomForCausalLM does not keep packed rows apart; "
        "set it to 0",
    ):
        run_fit(tiny_lm(architecture), rows(), settings, tmp_path)


def test_a_batch_that_no_row_may_fill_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"batch_tokens must be 0 or at least max_length \(1024\).*got 512"
    ):
        TrainSettings(batch_tokens=512)


@pytest.mark.parametrize(
    ("architecture", "longest", "fits"),
    [("llama", 900, True), ("mistral", 12, True), ("mistral", 13, False), ("gemma2", 5, False)],
)
def test_our_attention_is_taken_only_where_it_is_the_models_own(
    architecture: str, longest: int, fits: bool
) -> None:
    model = tiny_lm(architecture)
    assert packed_attention.attends_without_mask(model, longest, False, torch.float32) is fits
    if fits:
        assert not packed_attention.attends_without_mask(model, longest, True, torch.float32), (
            "the kernel has no float32"
        )
    model.config.attention_dropout = 0.1
    assert not packed_attention.attends_without_mask(model, longest, False, torch.float32)
