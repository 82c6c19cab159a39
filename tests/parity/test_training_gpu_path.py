"""What a training does on a GPU, run on a CPU: how often the host waits, what is compiled, and what
the log says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_packing import masked_twin
from test_training_parity import rows, run_fit
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, TrainingArguments

from glore.config import TrainSettings
from glore.errors import ModelError
from glore.training import compiled, fit, packed_attention, trainer
from glore.training.trainer import PlannedBatches
from support.tiny_models import tiny_lm

WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique"}
"""Operations whose result, or its size, the host must know: on a GPU it waits for all that was
launched before.
"""


class Waits(TorchDispatchMode):
    """Counts such operations, except those that make a batch (they always run on the CPU)."""

    def __init__(self) -> None:
        super().__init__()
        self.n, self.batches = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        self.n += not self.batches and (name in WAITS or masked)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's attention and log on a CPU, without threads."""

    @contextlib.contextmanager
    def attention(model: PreTrainedModel, *_: object) -> Iterator[None]:
        packed_attention.use_attention_without_mask(model)
        yield

    monkeypatch.setattr(packed_attention, "varlen", masked_twin)
    monkeypatch.setattr(fit, "suitable_attention", attention)
    monkeypatch.setattr(trainer, "N_THREADS", 1000)


def waits(n_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> int:
    make = PlannedBatches.__getitem__
    counter = Waits()

    def counted(self: PlannedBatches, index: int) -> dict[str, torch.Tensor]:
        counter.batches += 1
        try:
            return make(self, index)
        finally:
            counter.batches -= 1

    settings = TrainSettings.model_validate(
        {"max_steps": n_steps, "batch_size": 4, "max_length": 64, **changes}
    )
    with monkeypatch.context() as patch, counter:
        patch.setattr(PlannedBatches, "__getitem__", counted)
        run_fit(tiny_lm(), rows(), settings, tmp_path)
    return counter.n


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_tokens": 64}, {"bf16": True, "batch_tokens": 64}, {"gradient_accumulation": 2}],
)
def test_the_host_waits_only_where_the_loss_is_read(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(log_steps: int) -> int:
        """Waits of six steps."""
        counts = [
            waits(n, tmp_path / f"{log_steps}-{n}", monkeypatch, log_steps=log_steps, **changes)
            for n in (6, 12)
        ]
        return counts[1] - counts[0]

    assert more(3) == 2 * 2, "loss and gradient norm, twice"
    assert more(1) == 2 * 6, "the counter counts"


def test_on_a_gpu_the_loss_is_read_every_tenth_step_and_batches_travel_by_themselves(
    tmp_path: Path,
) -> None:
    on_gpu, on_cpu, asked = (
        fit._arguments(TrainSettings(log_steps=n), tmp_path, 5, 0, cpu, [])
        for n, cpu in ((0, False), (0, True), (3, True))
    )
    assert (on_gpu.logging_steps, on_cpu.logging_steps, asked.logging_steps) == (10, 1, 3)
    assert on_gpu.accelerator_config.non_blocking is True
    assert on_gpu.dataloader_pin_memory is True
    assert on_gpu.optim.value == "adamw_torch_fused"
    assert on_cpu.accelerator_config.non_blocking is False


def test_the_final_loss_is_the_mean_of_the_last_steps_however_they_are_logged() -> None:
    each = [float(n) for n in range(1, 41)]
    logged = [{"step": n, "loss": loss} for n, loss in enumerate(each, 1)]
    assert fit._final_loss([*logged, {"step": 40, "train_loss": 3.0}], 40) == sum(each[-4:]) / 4
    assert fit._final_loss(logged[:5], 5) == 5.0
    in_tens = [{"step": at, "loss": sum(each[at - 10 : at]) / 10} for at in (10, 20, 30, 40)]
    assert fit._final_loss(in_tens, 40) == sum(each[30:]) / 10
    uneven = [{"step": 37, "loss": 10.0}, {"step": 39, "loss": 4.0}, {"step": 40, "loss": 1.0}]
    assert fit._final_loss(uneven, 40) == pytest.approx((37 * 10 + 2 * 4 + 1) / 40)


def test_a_loss_read_now_and_then_is_the_mean_of_its_steps_and_is_read_at_the_end(
    tmp_path: Path,
) -> None:
    made = rows()
    settings = TrainSettings(batch_size=6, max_steps=7, learning_rate=1e-3, max_length=64)
    one, four = (
        run_fit(tiny_lm(), made, settings.model_copy(update={"log_steps": n}), tmp_path / str(n))
        for n in (1, 4)
    )
    losses = [
        run_fit(
            tiny_lm(),
            made,
            settings.model_copy(update={"max_steps": 7, "log_steps": n}),
            tmp_path / f"l{n}",
        )
        for n in (1, 7)
    ]
    assert losses[0] == one
    assert four != one, "the last entry holds steps 5 to 7"
    assert losses[1] > four > one, "losses fall, so longer means are higher"


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_loss_that_is_no_number_is_seen_at_the_next_reading(tmp_path: Path) -> None:
    model = tiny_lm()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="the loss is nan at step 3 of 9"):
        run_fit(
            model,
            rows(),
            TrainSettings(log_steps=3, max_steps=9, batch_tokens=64, max_length=64),
            tmp_path,
        )
    with pytest.raises(ModelError, match="the loss is nan at step 2 of 9"):
        run_fit(
            model,
            rows(),
            TrainSettings(log_steps=3, save_steps=2, max_steps=9, max_length=64),
            tmp_path,
        )
    assert not list(tmp_path.glob("checkpoints/checkpoint-*")), (
        "weights of a failed step are not saved"
    )


def llama(n_layers: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=n_layers, pad_token_id=0))


@pytest.mark.usefixtures("as_on_a_gpu")
def test_blocks_are_compiled_once_and_compute_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(batch_tokens=128, max_length=64, max_steps=6, learning_rate=1e-3)
    plain = llama(2)
    names = list(plain.state_dict())
    expected = run_fit(plain, rows(12), settings, tmp_path / "plain")
    frames = []
    for n_layers in (2, 5):
        torch._dynamo.reset()
        counter = CompileCounter()
        monkeypatch.setattr(compiled, "BACKEND", counter)
        model = llama(n_layers)
        loss = run_fit(
            model, rows(12), settings.model_copy(update={"compile": True}), tmp_path / str(n_layers)
        )
        frames.append(counter.frame_count)
        assert all(block._compiled_call_impl is None for block in model.model.layers), (
            "the model is left as it was"
        )
        if n_layers == 2:
            assert loss == pytest.approx(expected, rel=1e-5)
            assert list(model.state_dict()) == names
            for p, q in zip(model.parameters(), plain.parameters(), strict=True):
                assert (p - q).abs().mean() < 2e-5
    torch._dynamo.reset()
    assert frames[0] == frames[1], "layers of one kind share their code"
    assert 2 <= frames[0] <= 4, (
        "block and loss; once more at most for a number that turned out to vary"
    )


def test_a_transformers_without_activation_checkpointing_is_asked_by_the_older_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older(TrainingArguments):
        """As of 5.17 to 5.19."""

        def __init__(self, **arguments: Any) -> None:
            assert "activation_checkpointing" not in arguments, "unexpected keyword"
            wanted = arguments.pop("gradient_checkpointing")
            super().__init__(**arguments)
            self.gradient_checkpointing = wanted

    Older.__dataclass_fields__ = {
        n: f
        for n, f in TrainingArguments.__dataclass_fields__.items()
        if n != "activation_checkpointing"
    }
    monkeypatch.setattr(fit, "TrainingArguments", Older)
    assert fit._checkpointing(True) == {"gradient_checkpointing": True}
    arguments = fit._arguments(TrainSettings(gradient_checkpointing=True), tmp_path, 1, 0, True, [])
    assert arguments.gradient_checkpointing is True
    assert fit._arguments(TrainSettings(), tmp_path, 1, 0, True, []).gradient_checkpointing is False
