"""SVAMP (Patel et al. 2021): 1,000 one-unknown stories, `Body` + `Question`, 700 to train on and
300 to test on (method 8).

The authors' file has all 1,000 in one array: the first 700 (70 % of another length) are train, the
rest test. ChilleD/SVAMP on the Hub has the same sizes but may split differently. Worked solutions
are not used (method 1: D_0 is empty) unless `task.worked` makes them from the equations, or the
base model is trained from nothing (`task.scratch_path`). With `task.mawps_path` the problems of
MAWPS and ASDiv-A join the training questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glore.config import SvampTaskSettings, Worked
from glore.errors import DataError, shown
from glore.records import Problem
from glore.tasks.data.dataset import DatasetTask, load_rows, split_rows
from glore.tasks.data.row import Row, text_field
from glore.tasks.data.splits import Loaded
from glore.tasks.grading.grade import answer_line
from glore.tasks.grading.numbers import canonical, parse_number
from glore.tasks.svamp.equations import parse_infix
from glore.tasks.svamp.mawps import COLUMNS, read_mawps, with_mawps
from glore.tasks.svamp.templates import Template, solved, usable_templates

__all__ = ["open_svamp"]

_TRAIN_SHARE = 0.7


def open_svamp(settings: SvampTaskSettings, seed: int) -> DatasetTask:
    """SVAMP from `task.path` or the Hub, the same for every seed; with `task.scratch_path` also
    text to train a base model from nothing. Raises DataError.
    """
    equations: dict[str, str] = {}
    worked = settings.solutions

    def problem(row: Row, split: str, number: int) -> Loaded:
        loaded = _problem(row, split, number, worked)
        if settings.scratch_path is not None:
            equations[loaded.problem.id] = text_field(row, "Equation")
        return loaded

    splits = svamp = split_rows(settings, _rows(settings), problem, "drop")
    if settings.mawps_path is not None:
        mawps = read_mawps(Path(settings.mawps_path).expanduser(), "task.mawps_path")
        splits = with_mawps(svamp, mawps, worked)
    if settings.scratch_path is None:
        return DatasetTask("svamp", splits, boxed=settings.boxed)
    from glore.tasks.svamp.scratch import SvampFromScratch

    path = Path(settings.scratch_path).expanduser()
    rows = [row.template for row in read_mawps(path, "task.scratch_path")]
    templates = usable_templates(rows, svamp, equations)
    if not templates.given:
        raise DataError(
            f"{path} has no usable problem; it needs the columns {', '.join(COLUMNS)} of the "
            "MAWPS/ASDiv-A file"
        )
    return SvampFromScratch("svamp", splits, boxed=settings.boxed, templates=templates)


def svamp_question(body: str, question: str) -> str:
    """Body and question as one text, with a full stop after a body that lacks one."""
    body = body.strip()
    return f"{body}{'' if body.endswith(('.', '!', '?', ',')) else '.'} {question.strip()}"


def _rows(settings: SvampTaskSettings) -> Mapping[str, list[Row]]:
    rows = dict(load_rows(settings))
    if "all" in rows:
        cut = round(len(rows["all"]) * _TRAIN_SHARE)
        rows = {"train": rows["all"][:cut], "test": rows["all"][cut:]}
    return rows


def _problem(row: Row, split: str, number: int, worked: Worked) -> Loaded:
    question = svamp_question(text_field(row, "Body"), text_field(row, "Question"))
    answer = text_field(row, "Answer")
    gold = parse_number(answer)
    if gold is None:
        raise DataError(
            f"{row.where}: the field 'Answer' is {shown(answer)}, not one number; correct it"
        )
    name = text_field(row, "ID") if "ID" in row.fields else f"{split}-{number:05d}"
    solution = _worked(row, question, canonical(gold), worked) if split != "test" else None
    return Loaded(Problem(f"svamp-{name}", question, canonical(gold), solution, split), row.where)


def _worked(row: Row, question: str, gold: str, worked: Worked) -> tuple[str, ...] | None:
    """The equation as steps; none if it contradicts the answer (one of 1,000 does)."""
    if worked == "none":  # the equation is not even read
        return None
    equation = text_field(row, "Equation")
    try:
        steps = solved(Template(question, parse_infix(equation), {}), worked)
    except DataError as error:
        raise DataError(
            f"{row.where}: the field 'Equation': {error}; correct it or remove the problem"
        ) from error
    return steps if steps and steps[-1] == answer_line(gold) else None
