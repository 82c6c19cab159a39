"""Disk that the models of a run take, from the shapes of the base model's weights (`--dry-run`).

Counted are whole models, adapters, the checkpoints of the training in progress, and what
`keep: final` removes on the way. Records, a few MB, and tokenizers are not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

from glore.config import RunConfig, ScratchModelSettings, TrainSettings
from glore.errors import GloreError
from glore.pipeline import Stage
from glore.pipeline.removal import readers_of
from glore.stages.checks import base_folder

__all__ = [
    "BYTES",
    "HEADS",
    "DiskUse",
    "Shapes",
    "disk_use",
    "model_bytes",
    "n_models",
    "scratch_shapes",
    "weight_shapes",
]

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
KEPT_CHECKPOINTS = 3
"""Two complete ones (`training.resume`), while a third is written."""
STATES = 2
"""Numbers of the optimizer's state for each trained weight (AdamW)."""
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""A language model's head, which a step classifier does not have."""
Shapes = Mapping[str, tuple[int, ...]]
"""Name of a weight → its shape."""


@dataclasses.dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes of a run's models."""

    most: int
    """At the same time, checkpoints counted."""
    at_the_end: int
    n_models: int
    """Models that stay, adapters counted."""


def disk_use(config: RunConfig, stages: Sequence[Stage]) -> DiskUse | None:
    """What a whole run of these stages takes, upper bounds where it depends on results; None for a
    base that is not on this machine, or that can't be read.
    """
    shapes = weight_shapes(config)
    if shapes is None:
        return None
    present: dict[str, int] = {}
    most, place = 0, {stage.name: i for i, stage in enumerate(stages)}
    last = {
        model: max((place[r] for r in readers_of(model, stages, {}, config)), default=place[s.name])
        for s in stages
        for model in s.models
    }
    delivered = {model for stage in stages for model in stage.delivers}
    if _has_adapters(config, stages):
        delivered.add("base")
    is_sft_student = not config.student.ei.max_rounds
    for number, stage in enumerate(stages):
        if stage.name == "sft_orm" and is_sft_student:  # then it is the ORM itself
            continue
        settings, is_step = _training(config, stage)
        size = _saved_bytes(config, shapes, settings, is_step)
        for model in stage.models:
            # A hard link to the best round, which goes after this stage if models are removed.
            present[model] = 0 if model == "student" else size
        most = max(most, sum(present.values()) + _checkpoint_bytes(config, shapes, settings))
        if config.keep == "final":
            rounds = [m for m in present if m.startswith("ei")]
            gone = {m for m in present if last[m] <= number and m not in delivered}
            if stage.name == "student" and is_sft_student:
                gone.add("sft")
            for model in gone | set(rounds[:-2]):  # the best so far and the current one
                present.pop(model, None)
            if stage.name == "student":
                present["student"] = size or _student_bytes(config, shapes)
        most = max(most, sum(present.values()))
    return DiskUse(most, sum(present.values()), len(present))


def n_models(stages: Sequence[Stage]) -> int:
    """Models that these stages make."""
    return sum(len(stage.models) for stage in stages)


def model_bytes(config: RunConfig) -> int | None:
    """Bytes of the weights of the base model as the run loads it; None for a base that is not on
    this machine, or that can't be read.
    """
    shapes = weight_shapes(config)
    return None if shapes is None else _numbers(shapes) * BYTES[config.base.dtype]


def weight_shapes(config: RunConfig) -> Shapes | None:
    """Shapes of the base model's weights; None if they can't be known here."""
    if config.base.model is None:
        return scratch_shapes(config.base.scratch)
    if config.base.is_gguf:
        from glore.gguf_model import gguf_shapes

        return gguf_shapes(config.base.model)
    from glore.model_weights import weight_headers

    try:
        found = base_folder(config)
        headers = {} if found is None else weight_headers(found, "base.model")
    except (GloreError, OSError, ValueError):  # the check of the stage `base` reports it
        return None
    return {name: shape for name, (_, shape) in headers.items()} or None


def scratch_shapes(settings: ScratchModelSettings) -> Shapes:
    """Weights of the Llama that `glore.training.scratch` makes with the full vocabulary."""
    h, inner, vocabulary = settings.hidden_size, settings.intermediate_size, settings.vocab_size
    layer = {
        **{f"self_attn.{name}_proj.weight": (h, h) for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": (inner, h) for name in ("gate", "up")},
        "mlp.down_proj.weight": (h, inner),
        "input_layernorm.weight": (h,),
        "post_attention_layernorm.weight": (h,),
    }
    return {
        "model.embed_tokens.weight": (vocabulary, h),
        **{
            f"model.layers.{n}.{name}": shape
            for n in range(settings.n_layers)
            for name, shape in layer.items()
        },
        "model.norm.weight": (h,),
        "lm_head.weight": (vocabulary, h),
    }


def _training(config: RunConfig, stage: Stage) -> tuple[TrainSettings | None, bool]:
    """The settings of a stage's training, if it trains, and whether a step classifier is made."""
    for path in stage.reads if stage.models else ():
        value = functools.reduce(getattr, path.split("."), config)
        if isinstance(value, ScratchModelSettings):
            return value.train, False
        if isinstance(value, TrainSettings):
            return value, path.startswith("reward.")
    return None, False


def _has_adapters(config: RunConfig, stages: Sequence[Stage]) -> bool:
    trainings = [_training(config, stage)[0] for stage in stages]
    return any(t is not None and t.lora is not None and t.lora.saves_adapter for t in trainings)


def _saved_bytes(
    config: RunConfig, shapes: Shapes, settings: TrainSettings | None, is_step: bool
) -> int:
    if settings is not None and settings.lora is not None and settings.lora.saves_adapter:
        return 4 * _adapter_numbers(shapes, settings)  # peft keeps adapters in float32
    kept = {n: s for n, s in shapes.items() if not (is_step and n in HEADS)}
    return _numbers(kept) * BYTES[config.base.dtype]


def _student_bytes(config: RunConfig, shapes: Shapes) -> int:
    """The largest that the chosen round can be."""
    rounds = [config.student.ei_train] if config.student.ei.max_rounds else []
    sft = [config.student.sft] if config.student.bootstrap == "sft" else []
    return max(_saved_bytes(config, shapes, settings, False) for settings in (*rounds, *sft))


def _checkpoint_bytes(config: RunConfig, shapes: Shapes, settings: TrainSettings | None) -> int:
    """Checkpoints of a training in progress: the trained weights with the optimizer's state."""
    if settings is None or not settings.save_steps:
        return 0
    if settings.lora is not None:
        trained = 4 * _adapter_numbers(shapes, settings)
    else:
        trained = _numbers(shapes) * BYTES[config.base.dtype]
    return KEPT_CHECKPOINTS * (1 + STATES) * trained


def _adapter_numbers(shapes: Shapes, settings: TrainSettings) -> int:
    """Weights of the low-rank adapters: for each adapted matrix r × (inputs + outputs)."""
    assert settings.lora is not None
    targets = settings.lora.target_modules
    adapted = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2
        and (
            name.removesuffix(".weight").endswith(tuple(targets))
            if not isinstance(targets, str)
            else name not in HEADS and "embd" not in name and "embed" not in name
        )
    ]
    return settings.lora.r * sum(sum(shape) for shape in adapted)


def _numbers(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))
