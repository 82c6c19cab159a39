"""Files of solutions with step labels, in everybody's layouts.

labelled       the one record between all layouts: a solution with a label per step
reading        a file → solutions, streamed; the layout is told from the fields
writing        solutions → a file, and what was lost
validating     the faults of a file, by line and field
run_solutions  the labelled drafts of a run
registry       all layouts; one of them by name, or by the fields of a row
layout         what a layout is
fields         fields of a row, checked
rows           rows of a file (json_rows, parquet_rows, file_row)
joined, tagged question and steps in one text
plain, trl, prm800k, math_shepherd, rlhflow, openrlhf, paddlenlp, openr, processbench
"""

from __future__ import annotations

from glore.formats.labelled import NEUTRAL, Label, LabelledSolution, RolloutCount
from glore.formats.reading import read_solutions
from glore.formats.registry import LAYOUTS
from glore.formats.writing import Written, write_solutions

__all__ = [
    "LAYOUTS",
    "NEUTRAL",
    "Label",
    "LabelledSolution",
    "RolloutCount",
    "Written",
    "read_solutions",
    "write_solutions",
]
