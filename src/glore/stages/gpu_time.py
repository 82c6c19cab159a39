"""What a run with a large base would take on one GPU, from rates that were measured with a small
model on an H200 (docs/results.md, "On a GPU"). An estimate for dry runs: nothing like it was run.

Training: the same floating-point operations per second, so the rate falls as the weights grow; a
third more operations with gradient checkpointing, which computes the layers again. Low-rank
adapters save some of them, which is not counted.

Sampling: reading the additional weights once a step comes on top of the small model's time for a
token. That time stays as it is in the better case, where launching kernels takes it. In the worse
case it grows with the numbers that the layers put out, which elementwise kernels read and write.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from glore.config import RunConfig, TrainSettings
from glore.stages.disk import HEADS, Shapes, weight_shapes

__all__ = ["CARD", "GpuRates", "gpu_rates", "rates_of"]

CARD = "H200"
SMALL_WEIGHTS = 134_515_008
SMALL_OUTPUTS = 155_520
"""Numbers that the layers' matrices put out for a token, in SmolLM2-135M's shape."""
TRAINED = 209_497.0
"""Tokens per second of its fine-tuning, packed and compiled."""
DRAWN = {256: 22_940.0, 1024: 63_805.0}
"""Rows → tokens per second of its rollouts."""
STEP_SECONDS = 0.0057
BANDWIDTH = 4.21e12
"""Bytes per second that a copy on the card reached."""


class GpuRates(NamedTuple):
    """Tokens per second."""

    trained: float
    drawn_worse: float
    drawn_better: float


def gpu_rates(config: RunConfig) -> GpuRates | None:
    """The rates that a run's base may have; None where its shape is not known on this machine."""
    shapes = weight_shapes(config)
    if shapes is None:
        return None
    return rates_of(shapes, config.engine.max_rows, _checkpoints(config))


def rates_of(shapes: Shapes, max_rows: int, checkpoints: bool) -> GpuRates:
    """The rates for weights of these shapes."""
    n = sum(map(math.prod, shapes.values()))
    outputs = sum(s[0] for name, s in shapes.items() if len(s) == 2 and not _is_embedding(name))
    rows = max((r for r in DRAWN if r <= max_rows), default=min(DRAWN))
    small = min(1.0, max_rows / rows) * DRAWN[rows]
    # Rows end at different times, so a step draws fewer tokens than there are rows.
    more_bytes = 2 * max(0, n - SMALL_WEIGHTS)
    reading = more_bytes / BANDWIDTH / (small * STEP_SECONDS)
    return GpuRates(
        trained=TRAINED * SMALL_WEIGHTS / n * (0.75 if checkpoints else 1.0),
        drawn_worse=1 / (max(1.0, outputs / SMALL_OUTPUTS) / small + reading),
        drawn_better=1 / (1 / small + reading),
    )


def _is_embedding(name: str) -> bool:
    return name in HEADS or "embed" in name or "wte" in name or "wpe" in name


def _checkpoints(config: RunConfig) -> bool:
    trainings: tuple[TrainSettings, ...] = (
        config.student.ei_train,
        config.reward.orm,
        config.refiner.train,
    )
    return any(settings.gradient_checkpointing for settings in trainings)
