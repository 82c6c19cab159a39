"""SVAMP with worked solutions from its equations, and with MAWPS/ASDiv-A's problems to train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glore.config import RunConfig, TaskSettings
from glore.errors import DataError
from glore.tasks.open import open_task
from glore.tasks.protocol import Task

HEADER = "Question,Numbers,Equation,Answer\n"
CUPS = (
    "Ann has number0 cups and buys number1 more . how many cups are there ?,15 8,"
    "+ number0 number1,23\n"
)
TEA = (
    "There were number0 ml of tea in cups of number1 ml . how many cups ?,1050 65,"
    "/ number0 number1,16.15\n"
)


def svamp_row(i: int, name: str) -> dict[str, object]:
    return {
        "ID": f"chal-{i}",
        "Body": f"{name} had {i + 20} pens and lost 3 of them.",
        "Question": "How many pens are left?",
        "Equation": f"( {i + 20}.0 - 3.0 )",
        "Answer": float(i + 17),
        "Type": "Subtraction",
    }


def opened(folder: Path, mawps: str | None = CUPS, **settings: object) -> Task:
    rows = [svamp_row(i, f"Ann{chr(97 + i)}") for i in range(10)]
    (folder / "SVAMP.json").write_text(json.dumps(rows))
    if mawps is not None:
        (folder / "mawps.csv").write_text(HEADER + mawps, encoding="utf-8")
        settings["mawps_path"] = str(folder / "mawps.csv")
    return open_task(
        TaskSettings(kind="svamp", path=str(folder), n_dev=2, **settings),  # type: ignore[arg-type]
        seed=0,
    )


@pytest.mark.parametrize(
    ("worked", "svamp", "mawps"),
    [
        (None, None, None),
        ("none", None, None),
        ("equations", "{0} - 3 = {1}", ("15 + 8 = 23", "#### 23")),
        (
            "columns",
            "A {0}, B 3: A - B = {0} - 3 (",
            ("A 15, B 8: A + B = 15 + 8 (5 + 8 = 13, 1 + 0 + 1 = 2) = 23", "#### 23"),
        ),
    ],
)
def test_equations_become_solutions(
    tmp_path: Path, worked: str | None, svamp: str | None, mawps: tuple[str, ...] | None
) -> None:
    task = opened(tmp_path, worked=worked)
    *own, added = task.problems("train")
    assert (added.question, added.answer, added.solution) == (
        "Ann has 15 cups and buys 8 more. How many cups are there?",
        "23",
        mawps,
    )
    assert len(own) == 5
    for problem in own:
        numbers = (int(problem.answer) + 3, problem.answer)
        assert (problem.solution is None) == (svamp is None)
        if problem.solution is not None and svamp is not None:
            assert problem.solution[0].startswith(svamp.format(*numbers))
            assert problem.solution[-1] == f"#### {problem.answer}"
    assert all(p.solution is None for p in task.problems("test"))


def test_dev_is_svamps_own_and_the_same_without_mawps(tmp_path: Path) -> None:
    alone, both = opened(tmp_path, None), opened(tmp_path)
    for split in ("dev", "test"):
        assert both.problems(split) == alone.problems(split)
    assert both.problems("train")[:-1] == alone.problems("train")


def test_problems_that_would_give_dev_or_test_away_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    held = opened(tmp_path, None).problems("dev")[0].question
    masked = held.replace(next(w for w in held.split() if w.isdigit()), "number0", 1)
    leak = masked.replace(" 3 ", " number1 ") + ",77 5,- number0 number1,72\n"
    task = opened(tmp_path, CUPS + leak + CUPS + TEA, worked="equations")
    assert [p.id for p in task.problems("train")[5:]] == ["mawps-00001"]
    assert task.left_out() == {"duplicates": 1, "in_another_split": 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Ann has number0 cups,x,number0,4\n", "'Numbers' has 'x', which is not a number"),
        ("Ann has number0 cups,4,number1,4\n", "there is no number for number1"),
        ("Ann has number0 cups,4,+ number0,4\n", "the column 'Equation'"),
    ],
)
def test_a_line_that_cant_be_read_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'mawps.csv'}, line 2: ")
    assert complaint in str(caught.value)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can't read .*none\.csv.*; check task\.mawps_path"):
        opened(tmp_path, None, mawps_path=str(tmp_path / "none.csv"))


@pytest.mark.parametrize("worked", [None, "none"])
def test_fine_tuning_needs_worked_solutions(worked: str | None) -> None:
    task = {"kind": "svamp", "path": "x.json", "worked": worked}
    with pytest.raises(ValueError, match=r"set task\.worked to equations or columns"):
        RunConfig.model_validate({"name": "x", "base": {"model": "m"}, "task": task})
    RunConfig.model_validate(
        {"name": "x", "base": {"model": "m"}, "task": {**task, "worked": "equations"}}
    )


def test_the_real_file(data_dir: Path) -> None:
    folder = data_dir / "svamp"
    task = open_task(
        TaskSettings(
            kind="svamp",
            path=str(folder / "SVAMP.json"),
            n_dev=100,
            mawps_path=str(folder / "mawps_asdiv_train.csv"),
            worked="equations",
        ),
        seed=0,
    )
    train = task.problems("train")
    added = [p for p in train if p.id.startswith("mawps-")]
    assert len(added) == 2772
    left_out = task.left_out()  # type: ignore[attr-defined]
    assert 3138 - len(added) - sum(left_out.values()) == 59, "their equations are not exact"
    for problem in added:
        assert problem.solution is not None
        assert task.grade(problem, problem.solution).verdict == "right"
