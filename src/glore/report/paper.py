"""The paper's numbers (Havrilla et al. 2024), shown beside ours for orientation only: they come
from other models, sizes and data.

Each entry: percent on GSM8K 7B, GSM8K 13B, SVAMP 7B, SVAMP 13B. None: the paper gives no number.
"""

from __future__ import annotations

from types import MappingProxyType

from glore.decisions import GLOBAL, LOCAL_ORM, LOCAL_SORM
from glore.evaluation.inputs import BALANCED_ORM, ORM, SORM
from glore.evaluation.students import EI, SFT

__all__ = ["PAPER_COLUMN", "TABLE_1", "TABLE_2", "TABLE_3", "TABLE_5", "quoted"]

Row = tuple[float | None, float | None, float | None, float | None]

PAPER_COLUMN = "paper: GSM8K 7B·13B, SVAMP 7B·13B"

TABLE_1: MappingProxyType[str, Row] = MappingProxyType(
    {ORM: (74, 73, 77, 85), BALANCED_ORM: (73, 74, 77, 83), SORM: (79, 81, 78, 87)}
)
TABLE_2: MappingProxyType[str, Row] = MappingProxyType(
    {ORM: (82, 85, 75, 82), BALANCED_ORM: (80, 82, 73, 79), SORM: (79, 80, 74, 79)}
)
TABLE_3: MappingProxyType[tuple[str, ...], Row] = MappingProxyType(
    {
        (GLOBAL,): (20.3, 28.1, 14, 25.5),
        (LOCAL_ORM,): (18.2, 26.2, 9, 22.9),
        (LOCAL_SORM,): (21.1, 28.3, 11, 23.7),
        (GLOBAL, LOCAL_ORM): (25.2, 38.4, 17.3, 35),
        (GLOBAL, LOCAL_SORM): (28.0, 41.2, 19, 37),
    }
)
TABLE_5: MappingProxyType[tuple[str, str], Row] = MappingProxyType(
    {
        (SFT, "greedy"): (41, 48, None, None),
        (SFT, "majority"): (47, 55, None, None),
        (SFT, "reranked"): (54, 68, None, None),
        (SFT, "pass_k"): (72, 84, None, None),
        (EI, "greedy"): (48.5, 53, 58, 69),
        (EI, "majority"): (55, 59, 60, 75),
        (EI, "reranked"): (64, 71, 62, 78),
        (EI, "pass_k"): (80, 88, 70, 93),
    }
)


def quoted(row: Row | None) -> str:
    """A row as text, for example `20.3·28.1, 14·25.5`."""
    if row is None:
        return ""
    cells = ["–" if value is None else f"{value:g}" for value in row]
    return f"{cells[0]}·{cells[1]}" + (
        f", {cells[2]}·{cells[3]}" if any(v is not None for v in row[2:]) else ""
    )
