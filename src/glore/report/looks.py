"""The look of every method in charts: `LOOKS` gives its name a class of the style sheet. Names that
it does not hold get a spare look by their order in the chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

__all__ = ["LOOKS", "SPARE", "looks"]

LOOKS: Mapping[str, str] = MappingProxyType(
    {
        "ORM": "orm",
        "Balanced ORM": "balanced_orm",
        "SORM": "sorm",
        "majority": "majority",
        "weighted majority": "look6",
        "pass@K": "pass",
        "greedy": "pass",
        "best of N by ORM": "orm",
        "GLoRe": "sorm",
        "RISE": "look7",
        "GLoRe's refiner, asked again": "sorm",
        "GLoRe, right drafts in training": "look3",
        "+ right drafts in training": "look3",
        "RISE round 2: own turns": "look7",
        "ORM on final answers": "orm",
        "SORM on steps": "sorm",
        "PRM": "look5",
        "Math-Shepherd": "look6",
        "contrastive": "look7",
        "value-based": "look5",
        "global": "orm",
        "local + ORM": "balanced_orm",
        "local + SORM": "sorm",
        "local": "look5",
        "local from the error": "look5",
        "global ∪ local": "majority",
        "global or local": "majority",
    }
)
"""Name of a method as a chart shows it → class of the style sheet. A method that charts call by
several names has one look.
"""
SPARE = ("look1", "look2", "look3", "look4", "look5", "look6", "look7", "look8", "look9", "look10")
"""Looks of names that are not in `LOOKS`. Where there are more names, they come again: `again` has
other dashes and hollow dots.
"""
TWINS: Mapping[str, str] = MappingProxyType(
    {"orm": "look1", "sorm": "look2", "balanced_orm": "look3", "majority": "look4"}
)
"""Looks with the same colour. A chart has only one of two."""


def looks(names: Sequence[str]) -> dict[str, str]:
    """Names of a chart's methods → their looks, all different as far as there are enough."""
    found = {name: LOOKS[name] for name in names if name in LOOKS}
    used = {*found.values(), *(TWINS.get(look) for look in found.values())}
    spare = [look for look in SPARE if look not in used]
    others = [name for name in dict.fromkeys(names) if name not in found]
    every = [*spare, *(f"{look} again" for look in SPARE)]
    return {**found, **{n: every[i % len(every)] for i, n in enumerate(others)}}
