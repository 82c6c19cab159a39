from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import tiny_training as tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from glore.config import ScratchModelSettings
from glore.errors import ConfigError, ModelError
from glore.progress import SilentProgress
from glore.training.scratch import train_scratch_base

TOKENIZER = tiny.tiny_tokenizer()


def documents() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    i = 0
    while True:
        i += 1
        yield (f"Question: Ana has {i % 50} pens.\nAnswer:\n",), (f"Ana : {i % 50} + 7 = {i % 50 + 7}\n",)


@given(st.text(max_size=60))
def test_any_text_comes_back_unchanged(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids) == text


def test_digits_newlines_and_the_mark_are_tokens_of_their_own() -> None:
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER("[BAD] Ana : 12 + 7 = 19\n")["input_ids"])
    assert tokens == ["[BAD]", "ĠAna", "Ġ:", "Ġ", "1", "2", "Ġ+", "Ġ", "7", "Ġ=", "Ġ", "1", "9", "Ċ"]


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
    return ScratchModelSettings.model_validate({**small, "train": {**train, **changes.pop("train", {})}, **changes})


def test_a_base_from_nothing_stops_at_its_tokens_and_loads(tmp_path: Path) -> None:
    out = tmp_path / "base"
    report = train_scratch_base(documents(), scratch(), out, seed=1, progress=SilentProgress(), work_dir=tmp_path / "w")
    assert 3000 <= report.n_tokens < 3060
    assert report.n_dropped == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) <= 300
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    again = train_scratch_base(documents(), scratch(), tmp_path / "again", seed=1, progress=SilentProgress(), work_dir=tmp_path / "w2")
    assert again.final_loss == report.final_loss
    assert (tmp_path / "again/model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()


def test_documents_that_end_or_are_too_long(tmp_path: Path) -> None:
    few = train_scratch_base(
        islice(documents(), 20), scratch(), tmp_path / "few", seed=1, progress=SilentProgress(), work_dir=tmp_path / "w"
    )
    assert few.n_rows == 20
    with pytest.raises(ModelError, match="base documents are all longer than max_length=16"):
        train_scratch_base(
            documents(), scratch(train={"max_length": 16}), tmp_path / "x", seed=1, progress=SilentProgress(), work_dir=tmp_path / "w3"
        )
    with pytest.raises(ConfigError, match="no weights to adapt"):
        train_scratch_base(
            documents(), scratch(train={"lora": {}}), tmp_path / "x", seed=1, progress=SilentProgress(), work_dir=tmp_path / "w4"
        )
