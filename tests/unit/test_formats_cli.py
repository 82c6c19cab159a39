"""`glore export` and `glore validate`, the labelled drafts of a run, the examples of the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from glore.errors import RunError
from glore.formats import LAYOUTS, read_solutions, write_solutions
from glore.formats.run_solutions import run_solutions
from glore.formats.validating import validate_file
from glore.records import Problem, write_records
from support.command_line import glore
from support.fake_records import fake_inputs, finish_stage, write_run

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
STAGES = (
    *("problems", "samples", "rollouts", "labels"),
    *("test_drafts", "test_rollouts", "test_labels"),
)


@pytest.fixture
def made(tmp_path):
    """A run folder, and its records."""
    inputs = fake_inputs(12)
    run_dir = write_run(tmp_path, inputs)
    asked = dict.fromkeys(d.problem_id for d in inputs.train_drafts)
    train = [Problem(i, f"Question {i}?", "7", None, "train") for i in asked]
    write_records(run_dir / "stages/problems/train-00000.parquet", Problem, train)
    for stage in STAGES:
        finish_stage(run_dir, stage, seconds=1.0, tokens=1, counts={})
    return run_dir, inputs


def test_the_labelled_drafts_of_a_run(made):
    run_dir, inputs = made
    found = list(run_solutions(run_dir))
    assert [s.id for s in found] == [d.id for d in inputs.train_drafts]
    for solution, draft, record in zip(
        found, inputs.train_drafts, inputs.train_labels, strict=True
    ):
        assert (solution.steps, solution.labels) == (draft.steps, record.labels)
        assert solution.question == f"Question {draft.problem_id}?"
        assert solution.correct == {"right": True, "wrong": False}.get(draft.correct)
        assert (solution.kept or (True,) * len(draft.steps)) == (
            record.kept or (True,) * len(draft.steps)
        )
    truth = [s.labels for s in run_solutions(run_dir, labels="truth")]
    assert truth == [r.labels for r in inputs.train_truth]


def test_soft_labels_of_a_run_are_shares_of_all_rollouts(made):
    run_dir, inputs = made
    trials = {(t.solution_id, t.n_steps_kept): t for t in inputs.test_trials}
    for solution in run_solutions(run_dir, "test", "soft"):
        for i, label in enumerate(solution.labels[:-1], start=1):
            verdicts = trials[solution.id, i].correct
            assert (type(label), label) == (float, verdicts.count("right") / len(verdicts))
            assert solution.counts[i - 1] == (verdicts.count("right"), len(verdicts))
        assert solution.labels[-1] == (None if solution.correct is None else solution.correct)
    # A lazy scan ends at the first success, so most shares of the training drafts are not known.
    lazy = [s for s in run_solutions(run_dir, "train", "soft") if s.correct is False]
    assert any(None in s.labels for s in lazy)


def test_what_a_run_does_not_have_is_said(made):
    run_dir, _ = made
    (run_dir / "stages" / "test_labels" / "done.json").unlink()
    with pytest.raises(RunError, match="has not finished the stage test_labels"):
        list(run_solutions(run_dir, "test"))
    with pytest.raises(RunError, match="parts train, test, got 'dev'"):
        list(run_solutions(run_dir, "dev"))
    with pytest.raises(RunError, match="labels sorm, soft, truth, got 'human'"):
        list(run_solutions(run_dir, labels="human"))
    (run_dir / "stages" / "labels" / "truth-00000.parquet").unlink()
    with pytest.raises(RunError, match="has no truth labels of its train drafts"):
        list(run_solutions(run_dir, labels="truth"))


def test_export_of_a_run_and_validate(made, tmp_path):
    run_dir, inputs = made
    ended = glore(tmp_path, "export", str(run_dir), "--format", "trl", "--output", "a.parquet")
    n = sum(r.labels is not None for r in inputs.train_labels)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{n} solutions, ")
    assert f"lost, in {n} solutions: ids, gold answers, " in ended.stdout
    assert "Parquet" not in ended.stdout
    assert len(list(read_solutions(tmp_path / "a.parquet"))) == n
    checked = glore(tmp_path, "validate", "a.parquet")
    assert checked.returncode == 0
    assert re.search(rf"layout trl, {n} rows, {n} solutions, .* good\): no fault", checked.stdout)


def test_validate_shows_line_and_field_of_each_fault_and_fails(tmp_path):
    good = {"prompt": "Q?", "completions": ["a"], "labels": [True]}
    lines = [
        "not json",
        json.dumps(good),
        json.dumps({**good, "labels": []}),
        '{"prompt": "\x1b[31m"}',
        *[json.dumps({**good, "labels": [5]})] * 30,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    ended = glore(tmp_path, "validate", "a.jsonl", "--faults", "4")
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == [
        "a.jsonl, line 1: the line: not valid JSON (Expecting value at column 1); correct the line",
        "a.jsonl, line 3: labels: is empty; give at least one step",
        "a.jsonl, line 4: the line: not valid JSON (Invalid control character at at column 13); "
        "correct the line",
        "a.jsonl, line 5: labels[0]: 5 is no label; give one of true, false, a number from 0 to 1",
        "… and 29 more",
        "a.jsonl: layout trl, 34 rows, 1 solutions, 1 steps (1 good): 33 faults",
    ]
    found = validate_file(tmp_path / "a.jsonl")
    assert (found.n_faults, len(found.faults)) == (33, 20)


def test_faulty_rows_can_be_left_out(tmp_path):
    good = {"prompt": "Q?", "completions": ["a"], "labels": [True]}
    lines = [good, *[{**good, "labels": [i]} for i in range(5, 9)], good]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ("export", "a.jsonl", "--format", "PaddleNLP", "--output", "a.jsonl")
    assert "line 2: labels[0]: 5 is no label" in glore(tmp_path, *asked).stderr
    ended = glore(tmp_path, *asked, "--skip-faults")
    assert ended.stdout.splitlines()[:4] == [
        "2 solutions, 2 steps, layout paddlenlp: a.jsonl",
        "left out: 4 faulty rows, the first:",
        "  a.jsonl, line 2: labels[0]: 5 is no label; give one of true, false, a number from 0 "
        "to 1",
        "  a.jsonl, line 3: labels[0]: 6 is no label; give one of true, false, a number from 0 "
        "to 1",
    ]
    # The file was its own output.
    assert len(list(read_solutions(tmp_path / "a.jsonl", "paddlenlp"))) == 2


def test_an_array_that_breaks_off_is_a_fault_after_its_items(tmp_path):
    row = {"prompt": "Q?", "completions": ["a"], "labels": [True]}
    (tmp_path / "a.json").write_text(json.dumps([row, row, row])[:-9])
    found = validate_file(tmp_path / "a.json")
    assert (found.n_solutions, found.n_faults) == (2, 1)
    assert "item 3: not valid JSON" in found.faults[0]


def test_mistakes_end_in_one_line(tmp_path):
    row = {"prompt": "Q?", "completions": ["книжки"], "labels": [0.5]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    for arguments, said in (
        (("nothing.jsonl", "--format", "trl"), "can't read nothing.jsonl"),
        (("nothing", "--format", "trl"), "there is no run 'nothing'"),
        (("a.jsonl", "--format", "rlhflow"), "has the soft label 0.5"),
        (("a.jsonl", "--format", "trl", "--from", "jsonl"), "line 1: solution: is missing"),
    ):
        ended = glore(tmp_path, "export", *arguments, "--output", "out.jsonl")
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert not (tmp_path / "out.jsonl").exists()
    schema = glore(tmp_path, "validate", "--schema")
    assert json.loads(schema.stdout)["$id"] == "glore:trl_stepwise.v1"


def docs_example(name):
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(rf"^\*\*`{name}`\*\*.*?^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, f"docs/formats.md has no example of {name}"
    return found[1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_example_of_the_docs_there_and_back(tmp_path, name):
    """Read as its own layout, written, and through the plain layout: the row comes back."""
    path, plain, back = (tmp_path / f"{x}.jsonl" for x in ("a", "plain", "back"))
    row = json.loads(docs_example(name))
    path.write_text(json.dumps(row))
    found = list(read_solutions(path))
    assert len(found) == 1
    write_solutions(plain, found, "jsonl")
    assert list(read_solutions(plain)) == found
    write_solutions(back, read_solutions(plain), name)
    assert json.loads(back.read_text()) == row


def test_the_table_of_the_docs_names_every_layout_and_what_survives():
    text = DOCS.read_text(encoding="utf-8")
    for name, layout in LAYOUTS.items():
        line = next(x for x in text.splitlines() if x.startswith(f"| `{name}` |"))
        cells = [c.strip() for c in line.strip("|").split("|")]
        assert (cells[2] == "yes") == ("soft labels" in layout.holds), name
        assert (cells[3] == "yes") == ("neutral labels" in layout.holds), name


def test_examples_of_the_docs_share_their_solution():
    """The same question in all of them, so that a reader can compare."""
    texts = {name: docs_example(name) for name in LAYOUTS}
    assert all("Ann has 2 pens" in text for text in texts.values())
