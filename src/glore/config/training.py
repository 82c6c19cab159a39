"""Settings of one training, and of the base model that trainings start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Union

from pydantic import Field, field_validator, model_validator

from glore.config.section import NEWER, LocalPath, Names, Revision, Settings
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
    *("azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow"),
    *("mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"),
)
"""Trackers of transformers.Trainer. They are listed here since transformers takes seconds to
import.
"""


class LoraSettings(Settings):
    """Low-rank adaptation through peft (extra `peft`)."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = Field(32.0, gt=0)
    """Scale: the adapter counts `alpha / r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the adapter's input."""
    target_modules: Union[Literal["all-linear"], Names] = "all-linear"
    """Ends of the names of adapted layers; `all-linear`: all but the head."""
    save: Annotated[Literal["merged", "adapter"], NEWER] = "merged"
    """`merged`: a whole model, with the adapter merged. `adapter`: the adapter alone, which is
    merged in memory when the model is opened; the model that it was trained on must stay.
    """
    base: Annotated[Literal["full", "nf4"], NEWER] = "full"
    """Weights that the adapter is trained on: as they are, or in 4-bit NormalFloat (QLoRA, extra
    `qlora`). The adapter is merged into the weights as they are in either case.
    """

    @property
    def saves_adapter(self) -> bool:
        """Whether the adapter alone is saved."""
        return self.save == "adapter"

    @field_validator("target_modules")
    @classmethod
    def _targets(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not names or not all(names):
            raise ValueError(
                f"at least one layer is needed, got {shown(list(names))}; write all-linear for all "
                "of them"
            )
        return names


class TrainSettings(Settings):
    """One training run on transformers.Trainer."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the rows; parts are possible."""
    max_steps: int = Field(0, ge=0)
    """Optimiser steps; 0: as many as `epochs` gives."""
    learning_rate: float = Field(5e-5, gt=0)
    """At the top, after the warm-up."""
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    """The cosine ends at this share of `learning_rate` (App. C: 5e-5 → 5e-7)."""
    warmup_ratio: float = Field(0.03, ge=0, le=0.5)
    """Share of the steps in which the rate rises from 0."""
    batch_size: int = Field(64, ge=1)
    """Rows per device and micro-step."""
    batch_tokens: int = Field(0, ge=0)
    """Tokens per device and micro-step of packed rows, which don't attend to each other; for a GPU.
    0: `batch_size` padded rows.
    """
    gradient_accumulation: int = Field(1, ge=1)
    """Micro-steps of an optimiser step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the 2-D hidden weights, AdamW for embeddings, head and vectors."""
    weight_decay: float = Field(0.0, ge=0)
    """Of AdamW and Muon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longer gradients are shortened to this norm."""
    bf16: bool = False
    """Mixed precision in BF16. A CPU without BF16 instructions trains in float32 instead and
    reports it.
    """
    compile: bool = False
    """torch.compile for each block. For a GPU: compilation takes seconds, then kernels are fewer
    and longer.
    """
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: slower, with less memory."""
    max_length: int = Field(1024, ge=16)
    """Longer rows are left out and counted."""
    lora: LoraSettings | None = None
    save_steps: int = Field(0, ge=0)
    """Optimiser steps between two checkpoints inside the stage; 0: none, so a killed stage starts
    from the beginning.
    """
    log_steps: int = Field(0, ge=0)
    """Optimiser steps between two logged losses, each of which waits for the device; 0: every step
    on a CPU, every tenth on a GPU.
    """
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
    """Width of the model."""
    n_layers: int = Field(4, ge=1)
    """Blocks."""
    n_heads: int = Field(4, ge=1)
    """Attention heads; twice their number divides `hidden_size`."""
    intermediate_size: int = Field(384, ge=16)
    """Width inside a block's MLP."""
    max_positions: int = Field(1024, ge=128)
    """Context in tokens."""
    rope_theta: float = Field(300.0, gt=1)
    """Base of the rotary embeddings. Texts are short: with the usual 10,000 most angles hardly
    change, and the model learns to read later.
    """
    vocab_size: int = Field(1024, ge=300)
    """Tokens of its own tokenizer."""
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
    """A folder or Hub name for `AutoModelForCausalLM`, or a GGUF file; none: train `scratch`."""
    revision: Revision | None = None
    """Commit, tag or branch of a `model` on the Hub; none: the main branch at the time of loading.
    """
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that are trained and kept."""
    scratch: ScratchModelSettings = ScratchModelSettings()

    @field_validator("dtype", mode="before")
    @classmethod
    def _trainable(cls, dtype: object) -> object:
        if dtype == "float16":
            raise ValueError(
                "float16 can't be trained: small updates and gradients become zero in it; use "
                "float32 or bfloat16 (engine.dtype=float16 only draws and scores in it)"
            )
        return dtype

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
                f"revision {shown(self.revision)} pins a Hub name, but base.model is the local "
                f"{shown(self.model)}, whose content is fingerprinted anyway; drop the revision "
                "(base.revision=null)"
            )
        if not local and self.model is not None and "@" in self.model:
            raise ValueError(
                f"model {shown(self.model)}: a Hub name has no '@'; give what follows it as "
                "base.revision"
            )
        return self

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, which the run converts."""
        return self.model is not None and self.model.lower().endswith(".gguf")

    @property
    def is_made_here(self) -> bool:
        """Whether the run makes the base, as `models/base`: from nothing, or from a GGUF file."""
        return self.model is None or self.is_gguf

    @property
    def reference(self) -> str | None:
        """The folder or Hub name as loaders take it, with `@REVISION` appended if one is set; None
        for a base that the run makes.
        """
        if self.is_made_here:
            return None
        return self.model if self.revision is None else f"{self.model}@{self.revision}"


def is_local(model: str) -> bool:
    """Whether this is a local folder or file, or written as one, and not a Hub name such as `gpt2`
    or `Qwen/Qwen2.5-0.5B`.
    """
    return (
        model.startswith((".", "/", "~"))
        or model.count("/") > 1
        or model.lower().endswith(".gguf")
        or Path(model).exists()
    )
