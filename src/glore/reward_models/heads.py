"""The heads of other reward models, by the names of their weights."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["HEADS", "head_prefix"]

HEADS = {
    "score.": ("0.weight", "0.bias", "2.weight", "2.bias"),
    "v_head.": ("summary.weight", "summary.bias"),
}
"""How the weights of a foreign head begin → the rest of their names."""


def head_prefix(names: Collection[str]) -> str | None:
    """How the names of a foreign head's weights begin: Qwen's or a value head's; none: neither."""
    return next((prefix for prefix, own in HEADS.items() if prefix + own[0] in names), None)
