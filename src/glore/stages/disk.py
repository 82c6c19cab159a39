"""Disk that the models of a run take, from the size of the base model (`--dry-run`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glore.config import RunConfig, ScratchModelSettings
from glore.errors import GloreError
from glore.pipeline import Stage
from glore.stages.checks import base_folder

__all__ = ["model_bytes", "n_models", "scratch_parameters"]

BYTES = {"float32": 4, "bfloat16": 2}


def n_models(stages: Sequence[Stage]) -> int:
    """Models that these stages keep, each with all its weights."""
    return sum(len(stage.models) for stage in stages)


def model_bytes(config: RunConfig) -> int | None:
    """Bytes of the weights of one model of the run; None for a base that is not on this machine, or
    that can't be read.
    """
    size = BYTES[config.base.dtype]
    if config.base.model is None:
        return scratch_parameters(config.base.scratch) * size
    if config.base.is_gguf:
        from glore.gguf_model import gguf_parameters

        weights = gguf_parameters(config.base.model)
        return None if weights is None else weights * size
    from glore.model_weights import weight_headers

    try:
        found = base_folder(config)
        headers = {} if found is None else weight_headers(found, "base.model")
    except (GloreError, OSError, ValueError):  # the check of the stage `base` reports it
        return None
    return sum(math.prod(shape) for _, shape in headers.values()) * size or None


def scratch_parameters(settings: ScratchModelSettings) -> int:
    """Weights of the Llama that `glore.training.scratch` makes with the full vocabulary: a matrix
    that reads tokens and one that writes them, and per layer four of attention, three of the
    feed-forward part and two norms.
    """
    h, inner = settings.hidden_size, settings.intermediate_size
    return 2 * settings.vocab_size * h + settings.n_layers * (4 * h * h + 3 * h * inner + 2 * h) + h
