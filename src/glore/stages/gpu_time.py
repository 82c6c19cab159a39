"""What a run with a large base would take on one GPU, from rates that were measured with a small
model on an H200 (docs/results.md, "On a GPU"). An estimate for dry runs: nothing like it was run.

Training: the same floating-point operations per second, so the rate falls as the weights grow; a
third more operations with gradient checkpointing, which computes the layers again. Low-rank
adapters save some of them, which is not counted.

Sampling: additional weights cost reading them once a step, and two operations each for a token. In
the better case the larger of the two comes on top of the small model's time. In the worse case both
come on top, and the small model's time grows with the numbers that the layers put out, which
attention, norms and gates read and write. The step that was measured with 1.1 billion weights lies
between the two (a test holds that).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from glore.config import RunConfig, TrainSettings
from glore.stages.disk import HEADS, Shapes, weight_shapes

__all__ = ["CARD", "GpuRates", "gpu_rates", "rates_of", "step_seconds"]

CARD = "H200"
SMALL_WEIGHTS = 134_515_008
SMALL_OUTPUTS = 155_520
"""Numbers that the layers' matrices put out for a token, in SmolLM2-135M's shape."""
TRAINED = 209_497.0
"""Tokens per second of its fine-tuning, packed and compiled."""
DRAWN = {256: 58_500.0, 1024: 142_500.0}
"""Rows → tokens per second of its rollouts, the middle of two measurements each."""
STEP_SECONDS = 0.00218
BANDWIDTH = 4.2e12
"""Bytes per second that a copy on the card reached."""
OPERATIONS = 780e12
"""Per second, of large products in bfloat16 on the card."""


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
    worse, better = step_seconds(n, outputs, small * STEP_SECONDS)
    drawn = small * STEP_SECONDS
    return GpuRates(
        trained=TRAINED * SMALL_WEIGHTS / n * (0.75 if checkpoints else 1.0),
        drawn_worse=drawn / worse,
        drawn_better=drawn / better,
    )


def step_seconds(n_weights: int, outputs: int, n_tokens: float) -> tuple[float, float]:
    """A decode step of `n_tokens` tokens, in the worse and in the better case."""
    more = max(0, n_weights - SMALL_WEIGHTS)
    reading, products = 2 * more / BANDWIDTH, 2 * more * n_tokens / OPERATIONS
    growth = max(1.0, outputs / SMALL_OUTPUTS)
    return growth * STEP_SECONDS + reading + products, STEP_SECONDS + max(reading, products)


def _is_embedding(name: str) -> bool:
    return name in HEADS or "embed" in name or "wte" in name or "wpe" in name


def _checkpoints(config: RunConfig) -> bool:
    trainings: tuple[TrainSettings, ...] = (
        config.student.ei_train,
        config.reward.orm,
        config.refiner.train,
    )
    return any(settings.gradient_checkpointing for settings in trainings)
