"""Runs contenders in turn for several rounds. Reports medians, and ratios within rounds, so that a
busy machine slows all of them equally.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

Work = Callable[[], float]
"""Does the work once; returns how many units it did (rollouts, solutions, drafts)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A contender. `work` is none if it can't run, and `why` says the reason."""

    name: str
    work: Work | None
    why: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Units per second as the median of the rounds; our rate over theirs as median, minimum and
    maximum of the rounds.
    """

    name: str
    rate: float | None
    ratio: tuple[float, float, float] | None
    note: str = ""


def race(ours: Contender, others: list[Contender], n_rounds: int) -> list[Line]:
    """One warm-up of each contender, then `n_rounds` rounds."""
    runners = [ours, *(c for c in others if c.work is not None)]
    rates: dict[str, list[float]] = {c.name: [] for c in runners}
    for n in range(n_rounds + 1):
        for contender in runners:
            assert contender.work is not None
            start = time.perf_counter()
            units = contender.work()
            if n:
                rates[contender.name].append(units / (time.perf_counter() - start))
    lines = []
    for contender in [ours, *others]:
        got = rates.get(contender.name)
        if got is None:
            lines.append(Line(contender.name, None, None, contender.why))
            continue
        ratios = sorted(a / b for a, b in zip(rates[ours.name], got, strict=True))
        spread = None if contender is ours else (statistics.median(ratios), ratios[0], ratios[-1])
        lines.append(Line(contender.name, statistics.median(got), spread))
    return lines


def show(title: str, unit: str, lines: list[Line]) -> None:
    """A Markdown table."""
    print(f"\n### {title}\n\n| | {unit} | ours is faster by (rounds from–to) |\n|---|---|---|")
    for line in lines:
        rate = (
            line.note
            if line.rate is None
            else f"{line.rate:,.0f}"
            if line.rate >= 20
            else f"{line.rate:.2f}"
        )
        ratio = (
            ""
            if line.ratio is None
            else f"{line.ratio[0]:.1f} × ({line.ratio[1]:.1f}–{line.ratio[2]:.1f})"
        )
        print(f"| {line.name} | {rate} | {ratio} |", flush=True)
