"""The processor's peak in operations per second, by kind of product; `python -m benchmarks.peak`.

Loops of the one instruction that the compiled code's products consist of, with twelve independent
sums in registers, on all threads (peak.c). No engine that uses the instruction can be faster: real
products load their numbers, too.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import torch

from glore.engines.local.native.build import KINDS, compiled, compiler

__all__ = ["operations_of_a_token", "peak"]

_REPEATS = 10
_ROUNDS = 1 << 20
"""Milliseconds, of twelve instructions each."""


@cache
def _code() -> ctypes.CDLL | None:
    found = compiler()
    if found is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    code = ctypes.CDLL(str(compiled(found, Path(__file__).with_name("peak.c"))))
    code.peak_operations.argtypes = [ctypes.c_int64]
    code.peak_operations.restype = ctypes.c_int64
    code.peak_rounds.argtypes = [ctypes.c_int64] * 3
    code.peak_rounds.restype = ctypes.c_double
    return code


def peak(kind: str, n_threads: int) -> float | None:
    """Operations per second (a product and a sum are two) of the threads' own time, the most of
    several repeats. The threads must not be more than the cores.

    `kind`: one of KINDS. None without a compiler, on other processors than x86, and where this one
    has no such instruction.
    """
    code, number = _code(), KINDS.index(kind)
    if code is None or not (per_round := code.peak_operations(number)):
        return None
    rates = [code.peak_rounds(number, _ROUNDS, n_threads) for _ in range(_REPEATS)]
    if min(rates) < 0:
        raise MemoryError("no thread could be started")
    return float(max(rates) * per_round)


def operations_of_a_token(model: torch.nn.Module) -> int:
    """Operations in the products of weights for one drawn token; attention is not counted."""
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    return 2 * sum(m.weight.numel() for m in linear)


def main() -> None:
    n_threads = os.cpu_count() or 1
    for kind in KINDS:
        found = peak(kind, n_threads)
        rate = "no such instruction" if found is None else f"{found / 1e9:,.0f} G/s"
        print(f"{kind}: {rate}, {n_threads} threads, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
