from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from glore.config import ScratchModelSettings
from glore.errors import ConfigError, ModelError
from glore.progress import SilentProgress
from glore.tasks.protocol import Document
from glore.training import scratch as training
from glore.training.examples import Row, TrainReport
from glore.training.scratch import DrawDocument, train_scratch_base
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny

TOKENIZER = tiny.tiny_tokenizer()


def draw(rng: random.Random, progress: float) -> Document:
    """A question (read) and a step (learnt)."""
    i = rng.randrange(50)
    return (f"Question: Ana has {i} pens.\nAnswer:\n", False), (f"Ana : {i} + 7 = {i + 7}\n", True)


def train(out: Path, draw: DrawDocument = draw, **changes: object) -> TrainReport:
    setup = TrainingSetup(
        out_dir=out, work_dir=out.with_name(f"{out.name}.work"), seed=1, progress=SilentProgress()
    )
    return train_scratch_base(draw, scratch(**changes), setup)


@given(st.text(max_size=60))
def test_any_text_comes_back_unchanged(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids) == text


def test_digits_newlines_and_the_mark_are_tokens_of_their_own() -> None:
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER("[BAD] Ana : 12 + 7 = 19\n")["input_ids"])
    assert tokens == ["[BAD]", "ĠAna", "Ġ:", "Ġ1", "2", "Ġ+", "Ġ7", "Ġ=", "Ġ1", "9", "Ċ"]


def scratch(**changes: object) -> ScratchModelSettings:
    train = {"learning_rate": 3e-3, "optimizer": "muon", "batch_size": 8}
    small = {
        "hidden_size": 16,
        "n_layers": 1,
        "n_heads": 1,
        "intermediate_size": 16,
        "max_positions": 128,
        "vocab_size": 300,
        "n_tokens": 3000,
    }
    return ScratchModelSettings.model_validate(
        {**small, "train": {**train, **changes.pop("train", {})}, **changes}
    )


@pytest.fixture(autouse=True)
def few_tokenizer_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TOKENIZER_DOCUMENTS", 200)


def test_a_base_from_nothing_stops_at_its_tokens_and_loads(tmp_path: Path) -> None:
    out = tmp_path / "base"
    report = train(out)
    assert 3000 <= report.n_tokens < 3060
    assert report.n_dropped == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) <= 300
    assert (
        model.get_output_embeddings().weight.data_ptr()
        != model.get_input_embeddings().weight.data_ptr()
    ), "not tied"
    assert (model.config.eos_token_id, model.config.pad_token_id) == (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    again = train(tmp_path / "again")
    assert again.final_loss == report.final_loss
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        out / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()


def test_weights_start_wide_enough_for_a_narrow_model() -> None:
    torch.manual_seed(0)
    model = training.new_llama(scratch(hidden_size=64, intermediate_size=128), TOKENIZER)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.1, rel=0.1)


def test_the_task_is_told_how_far_training_is_and_rows_keep_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHUNK", 16)
    asked: list[float] = []
    fitted: list[list[int]] = []

    def counting(rng: random.Random, progress: float) -> Document:
        asked.append(progress)
        return (f"Ana has {len(asked)}", True), ("\n", False)

    def no_fit(
        model: object, rows: Sequence[Row], *_: object, in_order: bool, **__: object
    ) -> TrainReport:
        assert in_order
        fitted.extend(row.ids.tolist() for row in rows)
        return TrainReport(len(rows), 0, 0, 0, 0.0, 0.0)

    monkeypatch.setattr(training, "fit", no_fit)
    train(tmp_path / "base", counting, n_tokens=2000)
    for_tokenizer, for_rows = asked[:200], asked[200:]
    assert for_tokenizer == [n / 200 for n in range(200)], "the tokenizer sees the whole curriculum"
    assert for_rows == sorted(for_rows)
    assert for_rows[0] == 0.0
    assert 0.8 < for_rows[-1] < 1.0
    assert len(set(for_rows)) == len(for_rows) / 16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    numbers = [int(tokenizer.decode(ids, skip_special_tokens=True).split()[-1]) for ids in fitted]
    assert numbers == list(range(201, 201 + len(fitted)))


def test_documents_that_are_too_long_and_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="base documents are all longer than max_length=16"):
        train(tmp_path / "x", train={"max_length": 16})
    with pytest.raises(ConfigError, match="no weights to adapt"):
        train(tmp_path / "y", train={"lora": {}})
