"""All layouts, one of them by its name, and the one that a row has."""

from __future__ import annotations

import difflib
from types import MappingProxyType

from glore.errors import DataError, printable, shown
from glore.formats.fields import Fields
from glore.formats.layout import Layout
from glore.formats.math_shepherd import MATH_SHEPHERD
from glore.formats.openr import OPENR
from glore.formats.openrlhf import OPENRLHF
from glore.formats.paddlenlp import PADDLENLP
from glore.formats.plain import PLAIN
from glore.formats.prm800k import PRM800K
from glore.formats.processbench import PROCESSBENCH
from glore.formats.rlhflow import RLHFLOW
from glore.formats.trl import TRL

__all__ = ["LAYOUTS", "detect_layout", "find_layout"]

LAYOUTS = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            PLAIN,
            TRL,
            PRM800K,
            MATH_SHEPHERD,
            RLHFLOW,
            OPENRLHF,
            PADDLENLP,
            OPENR,
            PROCESSBENCH,
        )
    }
)
"""Name of every layout → the layout."""
ALIASES = MappingProxyType({"jsonl": "plain", "trl": "trlstepwise"})


def find_layout(name: str) -> Layout:
    """A layout by its name, in any case and with or without `-`, `_` and blanks. Raises DataError
    with the nearest name.
    """
    wanted = _letters(name)
    for layout in LAYOUTS.values():
        if wanted in (_letters(layout.name), ALIASES.get(layout.name)):
            return layout
    near = difflib.get_close_matches(name.strip().lower().replace("-", "_"), LAYOUTS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise DataError(f"there is no layout {shown(name)}; {hint}layouts: {', '.join(LAYOUTS)}")


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def detect_layout(fields: Fields, where: str) -> Layout:
    """The layout that the fields of a row fit. Raises DataError if none or several do."""
    fitting = [layout for layout in LAYOUTS.values() if layout.detects(fields)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(printable(str(name), 40) for name in list(fields)[:12]) or "none"
    if fitting:
        raise DataError(
            f"{where}: the fields ({names}) fit several layouts: "
            f"{', '.join(layout.name for layout in fitting)}; name one of them (--from)"
        )
    known = "; ".join(f"{layout.name} ({layout.title})" for layout in LAYOUTS.values())
    raise DataError(
        f"{where}: the fields ({names}) fit no layout; name one (--from), or rename them. {known}"
    )
