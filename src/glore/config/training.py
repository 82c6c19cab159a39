"""Settings of one training, and of the base model that trainings start from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Union

from pydantic import Field, field_validator, model_validator

from glore.config.section import LocalPath, Names, Revision, Settings
from glore.errors import shown

__all__ = [
    "TRACKERS",
    "BaseModelSettings",
    "LoraSettings",
    "ScratchModelSettings",
    "TrainSettings",
    "is_local",
]

TRACKERS = (
    *(
        "azure_ml",
        "clearml",
        "codecarbon",
        "comet_ml",
        "dagshub",
        "dvclive",
        "flyte",
        "kubeflow",
        "mlflow",
        "neptune",
        "swanlab",
    ),
    *("tensorboard", "trackio", "wandb"),
)
"""What transformers.Trainer can report to; written out because transformers takes seconds to
import.
"""


class LoraSettings(Settings):
    """Low-rank adaptation through peft (extra `peft`). The adapter is merged into the saved model."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Union[Literal["all-linear"], Names] = "all-linear"

    @field_validator("target_modules")
    @classmethod
    def _targets(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not names or not all(names):
            raise ValueError(
                f"it names at least one layer, got {shown(list(names))}; write all-linear for all "
                "of them"
            )
        return names


class TrainSettings(Settings):
    """One training run on transformers.Trainer."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(0, ge=0)
    """Optimiser steps; 0: as many as `epochs` gives."""
    learning_rate: float = Field(5e-5, gt=0)
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    """The cosine ends at this share of `learning_rate` (App. C: 5e-5 → 5e-7)."""
    warmup_ratio: float = Field(0.03, ge=0, le=0.5)
    batch_size: int = Field(64, ge=1)
    """Rows per device and micro-step."""
    batch_tokens: int = Field(0, ge=0)
    """Tokens per device and micro-step: rows are packed one after the other, and kept apart; for a
    GPU. 0: `batch_size` rows, padded."""
    gradient_accumulation: int = Field(1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the 2-D hidden weights, AdamW for embeddings, head and vectors."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    bf16: bool = False
    """Products in bfloat16. On a processor without such instructions, which would emulate them,
    training stays in float32 and says so.
    """
    compile: bool = False
    """Blocks through torch.compile: seconds at the start, then fewer and longer kernels. For a GPU.
    """
    gradient_checkpointing: bool = False
    max_length: int = Field(1024, ge=16)
    """Longer rows are left out and counted."""
    lora: LoraSettings | None = None
    save_steps: int = Field(0, ge=0)
    """Checkpoint inside the stage every so many optimiser steps; 0: none, the stage starts again
    when killed.
    """
    log_steps: int = Field(0, ge=0)
    """Optimiser steps between two readings of the loss, for which the host waits; 0: every step on
    a CPU, every tenth on a GPU."""
    report_to: Names = ()
    """Trackers of transformers.Trainer: `tensorboard`, `trackio`, …; `[all]`: all that are
    installed.
    """

    @model_validator(mode="after")
    def _rows_fit(self) -> TrainSettings:
        if 0 < self.batch_tokens < self.max_length:
            raise ValueError(
                f"batch_tokens must be 0 or at least max_length ({self.max_length}), so that every "
                f"row fits a batch, got {self.batch_tokens}; raise batch_tokens or lower max_length"
            )
        return self

    @field_validator("report_to")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in TRACKERS]
        if unknown and names not in (("all",), ("none",)):
            raise ValueError(
                f"no tracker is called {shown(unknown[0])}; known: {', '.join(TRACKERS)}, or [all] "
                "alone"
            )
        return names


class ScratchModelSettings(Settings):
    """A small Llama trained from nothing inside the run (needs a task that supplies base
    documents).
    """

    hidden_size: int = Field(128, ge=16)
    n_layers: int = Field(4, ge=1)
    n_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(384, ge=16)
    max_positions: int = Field(1024, ge=128)
    rope_theta: float = Field(300.0, gt=1)
    """Base of the rotary positions. Texts are short here: with the usual 10,000 most angles hardly
    turn, and reading is learnt later.
    """
    vocab_size: int = Field(1024, ge=300)
    n_tokens: int = Field(3_600_000, ge=1)
    """Tokens of base documents to train on."""
    train: TrainSettings = TrainSettings(learning_rate=3e-3, optimizer="muon", batch_size=64)

    @model_validator(mode="after")
    def _heads(self) -> ScratchModelSettings:
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * n_heads, got {self.hidden_size} and "
                f"{self.n_heads}"
            )
        return self


class BaseModelSettings(Settings):
    """The pretrained base: a Hugging Face causal LM, or a small one trained from nothing."""

    model: LocalPath | None = None
    """A folder or Hub name for `AutoModelForCausalLM`; none: train `scratch`."""
    revision: Revision | None = None
    """Commit, tag or branch of a `model` on the Hub; none: what its main branch holds when it is
    loaded.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    scratch: ScratchModelSettings = ScratchModelSettings()

    @model_validator(mode="after")
    def _whole_weights(self) -> BaseModelSettings:
        if self.scratch.train.lora is not None:
            raise ValueError(
                "scratch.train.lora: a model trained from nothing has no weights to adapt; set it "
                "to null"
            )
        return self

    @model_validator(mode="after")
    def _revision_of_a_hub_name(self) -> BaseModelSettings:
        if self.model is None and self.revision is not None:
            raise ValueError(
                f"revision {shown(self.revision)} needs a model on the Hub, but base.model is not "
                "set; set it or drop the revision"
            )
        local = self.model is not None and is_local(self.model)
        if local and self.revision is not None:
            raise ValueError(
                f"revision {shown(self.revision)} pins a Hub name, but base.model is the folder "
                f"{shown(self.model)}, whose content is noted anyway; drop the revision "
                "(base.revision=null)"
            )
        if not local and self.model is not None and "@" in self.model:
            raise ValueError(
                f"model {shown(self.model)}: no Hub name holds '@'; write what follows it as "
                "base.revision"
            )
        return self

    @property
    def reference(self) -> str | None:
        """What loaders take: the folder or Hub name, here with `@REVISION` after it where one is
        set.
        """
        return self.model if self.revision is None else f"{self.model}@{self.revision}"


def is_local(model: str) -> bool:
    """Is it a folder or file here, or written as one, rather than a Hub name such as `gpt2` or
    `Qwen/Qwen2.5-0.5B`?
    """
    return model.startswith((".", "/", "~")) or model.count("/") > 1 or Path(model).exists()
