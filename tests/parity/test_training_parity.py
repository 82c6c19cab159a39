"""The trainer's fast paths against slow twins: row by row, without padding, with all logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from glore.config import TrainSettings
from glore.progress import SilentProgress
from glore.training.batches import plan_batches
from glore.training.examples import IGNORED, Row, merged_rows
from glore.training.fit import fit
from glore.training.training_setup import TrainingSetup
from support.tiny_models import ARCHITECTURES, tiny_lm, tiny_step_model


def rows(n: int = 6, classes: int = 0) -> list[Row]:
    rng = np.random.default_rng(0)
    made = []
    for length in rng.integers(4, 30, n):
        ids = rng.integers(3, 61, length).astype(np.int32)
        targets = (
            np.append(ids[1:], IGNORED).astype(np.int32)
            if not classes
            else rng.integers(0, classes, length).astype(np.int32)
        )
        targets[: length // 2] = IGNORED
        made.append(Row(ids, targets))
    return made


def soft_rows(n: int = 6) -> list[Row]:
    """Every second row has soft labels; the others keep their classes."""
    rng = np.random.default_rng(1)
    made = rows(n, classes=2)
    for i in range(0, n, 2):
        soft = rng.random(len(made[i].ids)).astype(np.float32)
        targets = np.where(made[i].targets == IGNORED, np.float32(IGNORED), soft)
        made[i] = Row(made[i].ids, targets)
    return made


def slow_loss(model: torch.nn.Module, batch: list[Row]) -> torch.Tensor:
    """Mean over the scored positions, one unpadded row at a time."""
    total, n = torch.zeros(()), 0
    for row in batch:
        logits = model(input_ids=torch.tensor(row.ids[None].astype(np.int64))).logits[0]
        targets = torch.tensor(row.targets.astype(np.int64))
        total = total + cross_entropy(
            logits.float(), targets, reduction="sum", ignore_index=IGNORED
        )
        n += int((targets != IGNORED).sum())
    return total / n


def slow_step(model: torch.nn.Module, batch: list[Row], settings: TrainSettings) -> float:
    """One AdamW step by hand, as transformers sets it up; the loss before it."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    loss = slow_loss(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    optimizer.step()
    return loss.item()


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Padded and unpadded rows draw other dropout masks."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def run_fit(
    model: torch.nn.Module, made: list[Row], settings: TrainSettings, tmp_path: Path
) -> float:
    setup = TrainingSetup(
        out_dir=tmp_path / "x", work_dir=tmp_path, seed=3, progress=SilentProgress(), device="cpu"
    )
    return fit(model, made, settings, setup, pad_id=0, n_dropped=0).final_loss


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_padding_without_a_mask_and_scored_logits_only_change_nothing(
    architecture: str, tmp_path: Path
) -> None:
    made = rows()
    settings = TrainSettings(batch_size=6, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    fast, slow = without_dropout(tiny_lm(architecture)), without_dropout(tiny_lm(architecture))
    assert run_fit(fast, made, settings, tmp_path) == pytest.approx(
        slow_step(slow, made, settings), rel=1e-5
    )
    # Adam divides by the gradient's size: where a gradient is nearly zero its sign is rounding, so
    # compare in bulk.
    for a, b in zip(fast.parameters(), slow.parameters(), strict=True):
        assert (a - b).abs().mean() < 2e-5


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_step_loss_is_the_mean_over_kept_steps(architecture: str, tmp_path: Path) -> None:
    made = rows(classes=2)
    settings = TrainSettings(batch_size=6, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    model, twin = (
        without_dropout(tiny_step_model(architecture)),
        without_dropout(tiny_step_model(architecture)),
    )
    assert run_fit(model, made, settings, tmp_path) == pytest.approx(
        slow_loss(twin, made).item(), rel=1e-5
    )


def by_hand(model: torch.nn.Module, made: list[Row]) -> torch.Tensor:
    """Mean of −p log P(good) − (1 − p) log P(bad), one scored position at a time."""
    terms = []
    for row in made:
        logits = model(input_ids=torch.tensor(row.ids[None].astype(np.int64))).logits[0].double()
        for (bad, good), p in zip(logits, row.targets.tolist(), strict=True):
            if p != IGNORED:
                good_is_likely = 1 / (1 + torch.exp(bad - good))
                terms.append(
                    -p * torch.log(good_is_likely) - (1 - p) * torch.log(1 - good_is_likely)
                )
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_size": 2, "gradient_accumulation": 3}, {"batch_tokens": 200, "max_length": 64}],
    ids=["padded", "accumulated", "packed"],
)
def test_a_soft_label_is_learned_with_the_cross_entropy_of_both_classes(
    changes: dict[str, int], tmp_path: Path
) -> None:
    made = soft_rows()
    settings = TrainSettings(
        **{"batch_size": 6, "learning_rate": 1e-3, "warmup_ratio": 0.0, "max_steps": 1, **changes}
    )
    model, twin = (without_dropout(tiny_step_model("llama")) for _ in range(2))
    loss = by_hand(twin, made)
    assert run_fit(model, made, settings, tmp_path) == pytest.approx(loss.item(), rel=1e-5)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), settings.max_grad_norm)
    optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert (a - b).abs().mean() < 2e-5


def test_a_soft_label_is_so_many_copies_of_its_two_classes(tmp_path: Path) -> None:
    """One soft label of 3 / 4 and four hard ones, three of which are good, weigh the same."""
    ids = np.arange(5, 13, dtype=np.int32)
    blank = np.full(8, IGNORED, dtype=np.int32)
    good, bad, soft = blank.copy(), blank.copy(), blank.astype(np.float32)
    good[-1], bad[-1], soft[-1] = 1, 0, 0.75
    settings = TrainSettings(batch_size=4, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    hard = merged_rows([Row(ids, good)] * 3 + [Row(ids, bad)])
    a, b = (without_dropout(tiny_step_model("llama")) for _ in range(2))
    assert run_fit(a, hard, settings, tmp_path / "a") == pytest.approx(
        run_fit(b, merged_rows([Row(ids, soft)] * 4), settings, tmp_path / "b"), rel=1e-5
    )
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert (p - q).abs().mean() < 2e-5


@pytest.mark.parametrize("classes", [0, 2])
def test_equal_rows_learnt_once_weigh_as_often_as_they_occur(classes: int, tmp_path: Path) -> None:
    a, b, *others = rows(5, classes)
    made = [a, b, a, *others, a, b]
    merged = merged_rows(made)
    assert [row.copies for row in merged] == [3, 2, 1, 1, 1]
    assert merged_rows([*merged, a])[0].copies == 4
    settings = TrainSettings(batch_size=9, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    once, often = (
        without_dropout((tiny_step_model if classes else tiny_lm)("llama")) for _ in range(2)
    )
    assert run_fit(once, merged, settings, tmp_path / "once") == pytest.approx(
        run_fit(often, made, settings, tmp_path / "often"), rel=1e-5
    )
    for p, q in zip(once.parameters(), often.parameters(), strict=True):
        assert (p - q).abs().mean() < 2e-5


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    made = rows(8)
    large = TrainSettings(batch_size=8, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    small = large.model_copy(update={"batch_size": 2, "gradient_accumulation": 4})
    a, b = tiny_lm(), tiny_lm()
    assert len(plan_batches([len(r.ids) for r in made], 2, 1, 4, 3)) == 4
    assert run_fit(a, made, large, tmp_path / "a") == pytest.approx(
        run_fit(b, made, small, tmp_path / "b"), rel=1e-5
    )
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert (p - q).abs().mean() < 2e-5
