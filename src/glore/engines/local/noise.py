"""Counter-based noise: the uniform number behind every drawn token depends on (seed, position) and
on nothing else.

That is what makes a completion the same alone, in any batch, in any order and after any restart
(architecture, determinism). The mixing function is SplitMix64 (Steele, Lea and Flood 2014) applied
twice: once to the seed, so that neighbouring seeds give unrelated streams, and once to the stream's
counter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["GOLDEN", "uniforms"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniforms(
    seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """One number in [0, 1) per row, of 24 random bits. `seeds` [R] and `positions` [R] (0-based
    draw of the completion).
    """
    counter = _mix(seeds + GOLDEN) + (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN
    return (_mix(counter) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
