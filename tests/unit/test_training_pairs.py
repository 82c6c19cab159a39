"""Contrastive reward models: rows and batches of whole pairs, the loss, and trainings on them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForTokenClassification

from glore.config import TrainSettings
from glore.errors import ModelError
from glore.progress import SilentProgress
from glore.prompts import ControlText
from glore.reward_models.open import open_reward_model
from glore.training.examples import IGNORED, Row, TrainReport, merged_rows
from glore.training.finetune import train_contrastive
from glore.training.fit import fit
from glore.training.job import prompt_of
from glore.training.launch import as_json
from glore.training.pairs import PAIR, PairExample, pair_rows, pair_tokens, plan_pairs
from glore.training.trainer import summed_pair_losses
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny
from support.processes import TWO_PROCESSES
from support.tiny_models import tiny_step_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def examples(n: int = 12) -> list[PairExample]:
    """The right solution adds, the wrong one takes away, which a tiny model can see."""
    return [
        PairExample(
            (f"Question: Ana has {i} pens.\nAnswer:\n",),
            (f"Ana : {i} + 7\n", "#### 15\n"),
            (f"Ana : {i} - 7\n", f"Tom : {i}\n", "#### 15\n")[: 2 + i % 2],
        )
        for i in range(n)
    ]


def train(
    base: Path, folder: Path, launch: str = "", progress: SilentProgress | None = None, **changes
) -> TrainReport:
    setup = TrainingSetup(
        out_dir=folder / "out",
        work_dir=folder / "work",
        seed=5,
        progress=progress or SilentProgress(),
        device="cpu",
        launch=launch,
    )
    return train_contrastive(base, examples(), tiny.settings(**changes), setup)


def test_the_last_token_of_both_solutions_alone_is_scored() -> None:
    tokenizer = tiny.tiny_tokenizer()
    rows, n_dropped = pair_rows(tokenizer, examples(3), 96)
    assert (len(rows), n_dropped) == (6, 0)
    for n, row in enumerate(rows):
        scored = np.flatnonzero(row.targets != IGNORED)
        assert scored.tolist() == [len(row.ids) - 1]
        assert row.targets[scored[0]] == (n % 2 == 0)
    # A pair goes whole where one of its solutions is too long or has no steps.
    longest = [len(row.ids) for row in rows]
    assert longest[3] == max(longest)
    rows, n_dropped = pair_rows(tokenizer, examples(3), max(longest) - 1)
    assert (len(rows), n_dropped) == (4, 1)
    empty = dataclasses.replace(examples(1)[0], wrong=())
    assert pair_rows(tokenizer, [empty], 96) == ([], 1)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from([0, 40, 100]),
    st.integers(0, 3),
)
def test_batches_hold_whole_pairs_and_an_epoch_holds_each_once(pairs, batch_size, budget, seed):
    lengths = [n for pair in pairs for n in pair]
    settings = TrainSettings(batch_size=batch_size, batch_tokens=budget, max_length=30)
    plan = plan_pairs(lengths, settings, 0, seed)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    for batch in plan:
        assert [i % PAIR for i in batch] == [0, 1] * (len(batch) // PAIR)
        assert all(b == a + 1 for a, b in zip(batch[::2], batch[1::2], strict=True))
        if budget:
            assert sum(lengths[i] for i in batch) <= pair_tokens(lengths, budget)
        else:
            assert len(batch) <= max(PAIR, batch_size)
    assert pair_tokens(lengths, budget) == max(budget, *map(sum, pairs))


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[0.5, 2.0], [1.0, -1.0], [0.0, 0.25], [0.0, 1.0]])
    targets = torch.tensor([1, 0, 0, 1])  # the order within a pair does not matter
    weights = torch.tensor([1.0, 1.0, 3.0, 3.0])
    margins = (1.5 + 2.0, 1.0 - 0.25)
    by_hand = sum(w * math.log1p(math.exp(-m)) for w, m in zip((1, 3), margins, strict=True))
    assert summed_pair_losses(logits, targets, weights).item() == pytest.approx(by_hand, rel=1e-6)
    # A reward that both solutions of a pair share changes nothing.
    assert summed_pair_losses(
        logits + torch.tensor([[0.0, 7.0]]), targets, weights
    ).item() == pytest.approx(by_hand, rel=1e-5)


def made_rows(n: int = 4) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    for k, length in enumerate(rng.integers(4, 30, 2 * n)):
        targets = np.full(length, IGNORED, np.int32)
        targets[-1] = k % 2 == 0
        rows.append(Row(rng.integers(3, 61, length).astype(np.int32), targets))
    return rows


def without_dropout() -> torch.nn.Module:
    """Padded and unpadded rows draw other dropout masks."""
    model = tiny_step_model("llama")
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def slow_loss(model: torch.nn.Module, rows: list[Row]) -> float:
    """Mean over pairs, one unpadded row at a time."""
    rewards = []
    for row in rows:
        logits = model(input_ids=torch.tensor(row.ids[None].astype(np.int64))).logits[0, -1]
        rewards.append(logits[1] - logits[0])
    pairs = zip(rewards[::2], rewards[1::2], strict=True)
    return float(np.mean([-logsigmoid(a - b).item() for a, b in pairs]))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8},
        {"batch_size": 4, "gradient_accumulation": 2},
        {"batch_size": 1, "gradient_accumulation": 4},
        {"batch_tokens": 400, "max_length": 64},
    ],
    ids=["one batch", "accumulated", "a pair at a time", "packed"],
)
def test_however_pairs_are_batched_the_loss_is_the_mean_over_pairs(change, tmp_path: Path) -> None:
    rows = made_rows()
    settings = TrainSettings(learning_rate=1e-3, warmup_ratio=0.0, max_steps=1, **change)
    model, twin = without_dropout(), without_dropout()
    setup = TrainingSetup(
        out_dir=tmp_path / "x", work_dir=tmp_path, seed=3, progress=SilentProgress(), device="cpu"
    )
    report = fit(model, rows, settings, setup, pad_id=0, n_dropped=0, is_paired=True)
    assert report.final_loss == pytest.approx(slow_loss(twin, rows), rel=1e-5)


def test_equal_pairs_are_learnt_once_and_weigh_as_often_as_they_occur(tmp_path: Path) -> None:
    a, b, c, d = made_rows(2)
    often = [a, b, c, d, a, b, a, d]
    merged = merged_rows(often, PAIR)
    assert [row.copies for row in merged] == [2, 2, 1, 1, 1, 1]
    settings = TrainSettings(batch_size=8, learning_rate=1e-3, warmup_ratio=0.0, max_steps=1)
    losses = []
    for name, rows in (("once", merged), ("often", often)):
        setup = TrainingSetup(
            out_dir=tmp_path / name,
            work_dir=tmp_path / f"{name}-work",
            seed=3,
            progress=SilentProgress(),
            device="cpu",
        )
        model = without_dropout()
        losses.append(
            fit(model, rows, settings, setup, pad_id=0, n_dropped=0, is_paired=True).final_loss
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("change", [{}, {"lora": {"r": 4}}], ids=["whole", "lora"])
def test_it_learns_to_put_the_right_solution_first_and_loads_plainly(
    change, base: Path, tmp_path: Path
) -> None:
    first = train(base, tmp_path / "first", max_steps=1).final_loss
    report = train(base, tmp_path, epochs=10, **change)
    assert (report.n_rows, report.n_dropped, report.n_steps) == (24, 0, 60)
    assert report.final_loss < 0.5 * first
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "bad", 1: "good"}
    question = "Ana has 30 pens."
    with open_reward_model(tmp_path / "out") as scorer:
        right, wrong = scorer.score(
            [(question, ("Ana : 30 + 7", "#### 15")), (question, ("Ana : 30 - 7", "#### 15"))]
        )
    assert right[-1] > wrong[-1]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Contrastive reward model" in card
    assert "don't compare solutions of two questions" in card


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class DiesAt(SilentProgress):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self.left -= n
        if not self.left:
            raise Killed


def test_a_killed_training_on_pairs_resumes_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    changes = {"save_steps": 2, "epochs": 2}
    whole = train(base, tmp_path / "whole", **changes)
    with pytest.raises(Killed):
        train(base, tmp_path / "killed", progress=DiesAt(5), **changes)
    assert not (tmp_path / "killed" / "out").exists()
    notes: list[str] = []
    progress = SilentProgress()
    progress.note = notes.append  # type: ignore[method-assign]
    again = train(base, tmp_path / "killed", progress=progress, **changes)
    assert notes == [f"train out: resumed at step 4 of {whole.n_steps}"]
    assert again.final_loss == whole.final_loss
    a, b = (tmp_path / name / "out" / "model.safetensors" for name in ("whole", "killed"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.slow
def test_two_processes_train_on_pairs_what_one_trains_in_two_micro_steps(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    two = train(base, tmp_path / "two", TWO_PROCESSES)
    one = train(base, tmp_path / "one", gradient_accumulation=2)
    assert (two.n_steps, two.n_rows, two.n_tokens) == (one.n_steps, one.n_rows, one.n_tokens)
    assert two.final_loss == pytest.approx(one.final_loss, abs=1e-4)
    a, b = (load_file(tmp_path / name / "out" / "model.safetensors") for name in ("two", "one"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4


def test_pairs_on_their_way_to_a_job(base: Path, tmp_path: Path) -> None:
    pair = PairExample((ControlText("<|im_start|>"), "How many?"), ("a\n", "b\n"), ("c\n",))
    told = json.loads(json.dumps(as_json(pair)))
    assert (prompt_of(told), told["right"], told["wrong"]) == (pair.prompt, ["a\n", "b\n"], ["c\n"])
    assert isinstance(prompt_of(told)[0], ControlText)


def test_nothing_to_learn_from_is_said(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"0 rows left, 12 dropped as longer than max_length=16"):
        train(base, tmp_path, max_length=16)
