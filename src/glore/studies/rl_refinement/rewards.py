"""What a refinement R of a draft D earns (App. C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["REWARDS", "Outcome"]


class Outcome(NamedTuple):
    """A refinement and its draft, judged."""

    right: bool
    draft_right: bool
    orm: float = 0.0
    """The ORM's score of the refinement's last step; 0 without steps."""
    draft_orm: float = 0.0


def _difference(o: Outcome) -> float:
    """1[R right] − 1[D right]."""
    return float(o.right) - float(o.draft_right)


def _orm(o: Outcome) -> float:
    """The larger of that and ORM(R) − ORM(D)."""
    return max(_difference(o), o.orm - o.draft_orm)


def _gain(o: Outcome) -> float:
    """1 for a fixed draft, else 0: breaking a right one costs nothing."""
    return max(0.0, _difference(o))


REWARDS: Mapping[str, Callable[[Outcome], float]] = MappingProxyType(
    {"difference": _difference, "orm": _orm, "gain": _gain}
)
