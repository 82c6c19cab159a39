"""Which engine draws in a run with `engine.kind=auto`, decided once for all of its stages."""

from __future__ import annotations

import math

from glore.config import AutoEngineSettings, ChosenEngine, RunConfig
from glore.engines.auto import as_kind, best_kind
from glore.pipeline.recorded import noted_values
from glore.stages.disk import weight_shapes

__all__ = ["choose_for_run"]


def choose_for_run(config: RunConfig) -> ChosenEngine:
    """The engine for a run whose `engine.kind` is `auto`, and why.

    In a new run the size of the base decides, since all models of a run have its size. Where stages
    of this run folder were drawn with one of the kinds already, it stays with that kind, so that
    they can be reused after vLLM was installed or on another machine. Raises ConfigError.
    """
    assert isinstance(config.engine, AutoEngineSettings)

    def n_weights() -> int | None:
        shapes = weight_shapes(config)
        return None if shapes is None else sum(map(math.prod, shapes.values()))

    kind, why = best_kind(config.engine, n_weights)
    noted = noted_values(config.run_dir, "engine.kind")
    for other in ("torch", "vllm"):
        if noted == {other} != {kind}:
            kind, why = other, "stages of this run were drawn with it"
    return as_kind(config.engine, kind, why)
