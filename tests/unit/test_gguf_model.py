"""A base model in a GGUF file: converted once, and a plain folder from then on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from glore.config import RunConfig
from glore.errors import ConfigError, ModelError
from glore.models import load_causal_lm, load_tokenizer

pytest.importorskip("gguf", reason="the extra gguf is not installed")

from glore.gguf_model import check_gguf, convert_gguf, gguf_shapes
from glore.pipeline import plan_stages, run_stages
from glore.pipeline.marks import read_done
from glore.stages import build_stages
from glore.stages.disk import model_bytes
from support.tiny_gguf import TOKENS, tiny_llama, write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    torch.manual_seed(0)
    write_gguf(tiny_llama(), path)
    return path


def config_of(folder: Path, model: Path, **base: object) -> RunConfig:
    (folder / "mine.jsonl").write_text(
        "".join(f'{{"question": "a {n}", "answer": {n}}}\n' for n in range(40))
    )
    return RunConfig.model_validate(
        {
            "name": "t",
            "runs_dir": str(folder),
            "task": {"kind": "jsonl", "path": str(folder / "mine.jsonl"), "n_dev": 5},
            "base": {"model": str(model), **base},
        }
    )


def test_the_folder_holds_the_same_model_in_plain_weights(file: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = tiny_llama()
    n = convert_gguf(file, tmp_path / "base", "float32")
    assert n == n_weights(file) == sum(p.numel() for p in original.parameters())
    model, tokenizer = load_causal_lm(tmp_path / "base"), load_tokenizer(tmp_path / "base")
    ids = torch.tensor([[1, 2, 3, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, original(ids).logits, atol=1e-4)
    assert "quantization_config" not in (tmp_path / "base" / "config.json").read_text()
    assert tokenizer.eos_token_id == 0
    assert tokenizer("ab").input_ids[-1] == TOKENS.index("ab")


@pytest.mark.parametrize(
    ("without", "more", "message"),
    [
        (("blk.1.ffn_up.weight",), {}, r"has no weights for model\.layers\.1\.mlp\.up_proj"),
        (("output_norm.weight",), {}, r"has no weights for model\.norm"),
        ((), {"blk.1.attn_q.bias": np.ones(32, np.float32)}, "holds 32 numbers more than Llama"),
        ((), {"blk.0.other.weight": np.ones((2, 3), np.float32)}, "holds 6 numbers more than"),
        (("output.weight",), {}, None),  # tied to the embeddings
        ((), {"rope_freqs.weight": np.ones(4, np.float32)}, None),  # Llama 3's, in its config too
    ],
)
def test_a_file_with_weights_missing_or_left_over_is_refused(
    tmp_path: Path, without: tuple[str, ...], more: dict[str, np.ndarray], message: str | None
) -> None:
    write_gguf(tiny_llama(), tmp_path / "odd.gguf", without, more)
    if message is None:
        assert convert_gguf(tmp_path / "odd.gguf", tmp_path / "base", "float32")
        return
    with pytest.raises(ModelError, match=message):
        convert_gguf(tmp_path / "odd.gguf", tmp_path / "base", "float32")
    assert not (tmp_path / "base").exists()


def n_weights(file: Path) -> int:
    return sum(map(math.prod, (gguf_shapes(file) or {}).values()))


def test_the_base_stage_converts_it_and_follows_its_content(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(file.read_bytes())
    config = config_of(tmp_path, own, dtype="bfloat16")
    assert model_bytes(config) == 2 * n_weights(file)
    run_stages(build_stages(config), config, until="base")
    done = read_done(config.run_dir / "stages" / "base")
    assert done is not None
    assert list(done.models) == ["base"]
    assert load_causal_lm(config.run_dir / "models" / "base", "bfloat16").dtype == torch.bfloat16

    def state() -> tuple[str, str]:
        plan = plan_stages(build_stages(config)[:2], config)[1]
        return plan.state, plan.why

    assert state() == ("reused", "complete")
    torch.manual_seed(1)
    write_gguf(tiny_llama(), own)
    assert state()[0] == "computed"
    assert state()[1].startswith("content of base.model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "is no GGUF file"),
        (b"PK\x03\x04 a zip", "is no GGUF file: it begins with b'PK"),
        (b"GGUF" + b"\xff" * 60, "can't load a causal language model"),
    ],
)
def test_what_is_no_gguf_file_is_said_before_the_run_starts(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    bad = tmp_path / "bad.gguf"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        convert_gguf(bad, tmp_path / "base", "float32")
    assert gguf_shapes(bad) is None
    if not message.startswith("can't"):
        config = config_of(tmp_path, bad)
        with pytest.raises(ModelError, match=message):
            run_stages(build_stages(config), config, dry_run=True)


def test_a_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glore.gguf_model.is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"needs the package gguf.*glore\[gguf\]"):
        check_gguf(file)
