"""Runs side by side: groups of seeds, pairs of questions, intervals, the command."""

import csv
import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from glore.errors import RunError
from glore.evaluation import EvaluationOptions, evaluate
from glore.evaluation.compare import Group, MeasuredRun, compare
from glore.evaluation.measures import Measure, measure
from glore.pipeline.folder import write_json
from glore.pipeline.marks import DoneMark
from glore.report.compared import compare_runs, to_csv, to_json
from glore.report.pooled import pooled_markdown
from glore.statistics import Kept, mcnemar_p, ratio, wilson
from support.command_line import environment
from support.fake_records import fake_inputs, write_run

KEY = {"table": "t", "what": "w"}


def made(name, flags, seed=0, questions=None):
    """A run with one measure: a yes/no outcome per question."""
    questions = questions or {f"question {i}": f"q{i}" for i in range(len(flags))}
    found = wilson(sum(flags), len(flags))
    columns = np.asarray([(f, 1) for f in flags], dtype=float)
    kept = Kept(found.value, found.low, found.high, found.n, list(questions), columns, ratio)
    return MeasuredRun(name, seed, questions, [Measure(**KEY, estimate=kept)])


def glore(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "glore", *arguments],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


def alone(*runs):
    return [Group(run.name, (run,)) for run in runs]


def finished(run_dir, seed=0, **settings):
    """Mark a run's evaluate stage as done, with the settings that it notes."""
    noted = {"seed": seed, "evaluation.bootstrap_samples": 100, **settings}
    mark = DoneMark(
        "evaluate", "f", noted, {}, 1, 1, {}, 1.0, 0, {}, {}, {}, "2026-01-01T00:00:00+00:00"
    )
    write_json(run_dir / "stages" / "evaluate" / "done.json", dataclasses.asdict(mark))
    return run_dir


def test_a_difference_is_paired_on_shared_questions():
    first = made("a", [1] * 50 + [0] * 50)
    second = made("b", [1] * 40 + [0] * 10 + [1] * 2 + [0] * 48)
    _, row = compare(alone(first, second))
    assert row.estimate == wilson(42, 100)
    d = row.difference
    assert (row.pairing, row.n_questions, d.n) == ("paired", 100, 100)
    assert d.value == pytest.approx(-0.08)
    assert (d.gained, d.lost, d.p) == (2, 10, mcnemar_p(2, 10))
    # 12 of 100 questions differ: far narrower than two independent samples of 100.
    assert d.high < 0
    assert d.high - d.low < 0.15


def test_p_with_many_differing_questions():
    first = made("a", [1] * 30 + [0] * 170)
    second = made("b", [0] * 30 + [1] * 60 + [0] * 110)
    _, row = compare(alone(first, second))
    assert (row.difference.gained, row.difference.lost) == (60, 30)
    exact = 2 * sum(math.comb(90, k) for k in range(31)) / 2**90  # more than 64 bits
    assert row.difference.p == pytest.approx(exact)
    assert exact < 0.003


def test_pairs_need_the_same_id_and_the_same_text():
    flags = [1, 0] * 50
    first = made("a", flags)
    other_texts = made("b", flags, questions={f"other {i}": f"q{i}" for i in range(100)})
    other_ids = made("c", flags, questions={f"question {i}": f"x{i}" for i in range(100)})
    rows = compare(alone(first, other_texts, other_ids))
    assert [row.pairing for row in rows] == [None, "unpaired", "unpaired"]
    assert rows[1].n_questions == 200
    assert all(row.difference.p is None and row.difference.value == 0 for row in rows[1:])
    independent = rows[1].difference
    assert independent.high - independent.low > 0.2


def test_a_subset_is_compared_on_what_both_have():
    first = made("a", [1] * 60 + [0] * 40)
    subset = {f"question {i}": f"q{i}" for i in range(60, 100)}
    _, row = compare(alone(first, made("b", [1] * 10 + [0] * 30, questions=subset)))
    assert (row.pairing, row.n_questions, row.difference.value) == ("paired", 40, 0.25)


def test_too_few_shared_questions_are_unpaired():
    one = {"question 0": "q0"} | {f"other {i}": f"o{i}" for i in range(1, 10)}
    first, second = made("a", [1] * 10), made("b", [0] * 10, questions=one)
    _, row = compare(alone(first, second))
    assert (row.pairing, row.difference.value, row.n_questions) == ("unpaired", -1, 19)


def test_seeds_are_averaged_and_their_spread_widens_the_interval():
    alike = Group("g", tuple(made(f"r{s}", [1] * 50 + [0] * 50, s) for s in range(3)))
    apart = Group(
        "g", tuple(made(f"r{s}", [1] * n + [0] * (100 - n), s) for s, n in enumerate((20, 50, 80)))
    )
    (a,), (b,) = compare([alike]), compare([apart])
    assert a.estimate.value == b.estimate.value == 0.5
    assert (a.n_seeds, a.estimate.n) == (3, 300)
    # The same answers under all seeds: three times one run says no more than one run.
    assert a.estimate.high - a.estimate.low == pytest.approx(2 * 1.96 * 0.05, abs=0.02)
    assert b.estimate.high - b.estimate.low > 2 * (a.estimate.high - a.estimate.low)
    assert 0 <= b.estimate.low <= b.estimate.high <= 1


def test_groups_with_the_same_seeds_are_paired_by_seed():
    """Each seed has questions of its own, as the built-in stories do."""

    def group(name, gain):
        runs = []
        for s, n in enumerate((30, 50, 70)):
            questions = {f"seed {s} question {i}": f"q{i}" for i in range(100)}
            runs.append(made(f"{name}{s}", [1] * (n + gain) + [0] * (100 - n - gain), s, questions))
        return Group(name, tuple(runs))

    base, better = group("a", 0), group("b", 10)
    backwards = Group("b", better.runs[::-1])
    for other in (better, backwards):
        _, row = compare([base, other])
        assert (row.pairing, row.n_questions, row.difference.n) == ("paired", 300, 300)
        assert row.difference.value == pytest.approx(0.1)
        # The seeds differ by 40 points, the differences by none.
        assert row.difference.high - row.difference.low < 0.1


def test_the_interval_over_seeds_covers():
    """95 % intervals of three seeds with an effect of their own hold the truth about as often."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        ease = rng.normal(0, 0.25, 100)
        runs = tuple(
            made(
                f"r{s}",
                (rng.random(100) < np.clip(0.5 + ease + rng.normal(0, 0.05), 0, 1)).astype(int),
                s,
            )
            for s in range(3)
        )
        e = compare([Group("g", runs)], n_draws=200)[0].estimate
        hits += e.low <= 0.5 <= e.high
    assert hits >= 51


def test_measures_are_those_of_the_report():
    inputs, options = fake_inputs(20), EvaluationOptions(bootstrap_samples=100)
    found = {(m.table, m.what): m.estimate for m in measure(inputs, options)}
    report = evaluate(inputs, options)

    def same(kept, estimate):
        return (kept.value, kept.low, kept.high, kept.n) == dataclasses.astuple(estimate)

    assert same(found["student", "EI greedy"], report.table5[1].greedy)
    assert same(found["steps", "sorm against labels balanced"], report.table1[2].balanced)
    assert same(found["fixed", "global ∪ local_sorm"], report.table3[-1].fixed)
    assert same(found["reranked", "best_of_3"], report.figure4[1].accuracy)
    assert len(found) > 30
    assert type(report.table5[0].greedy) is not Kept


def test_runs_that_differ_in_seed_alone_are_one_row(tmp_path):
    runs = [
        finished(write_run(tmp_path, fake_inputs(12, seed=s)), seed=s, **{"labels.rollouts": 4})
        for s in (1, 2)
    ]
    other = finished(write_run(tmp_path, fake_inputs(12, seed=3)), seed=1)
    again = finished(
        write_run(tmp_path / "copy", fake_inputs(12, seed=1)), seed=1, **{"labels.rollouts": 4}
    )
    found = compare_runs([*runs, other, again])
    names = [g.name for g in found.groups]
    assert [g.seeds for g in found.groups] == [(1, 2), (1,), (1,)]
    assert names[0].endswith("/fake-1 (seeds 1, 2)")
    assert names[2] == "copy/fake-1"
    assert found.groups[1].changed == ("labels.rollouts: 4 → 8",)
    assert found.groups[2].changed == ()
    greedy = [row for row in found.rows if row.what == "EI greedy"]
    assert [row.group for row in greedy] == names
    assert greedy[0].estimate.n == 24
    assert greedy[1].pairing == "unpaired"


def test_json_and_csv_have_every_number(tmp_path):
    runs = [finished(write_run(tmp_path, fake_inputs(10, seed=s)), seed=s) for s in (1, 2)]
    runs.append(finished(write_run(tmp_path, fake_inputs(10, seed=4)), **{"labels.rollouts": 2}))
    found = compare_runs(runs)
    data = json.loads(to_json(found))
    rows = list(csv.DictReader(to_csv(found).splitlines()))
    assert len(rows) == len(data["rows"]) == len(found.rows)
    for text, row in zip(rows, found.rows, strict=True):
        assert (text["table"], text["measure"], text["runs"]) == (row.table, row.what, row.group)
        for name in ("value", "low", "high"):
            for field, of in ((name, row.estimate), (f"difference {name}", row.difference)):
                number = of and getattr(of, name)
                assert text[field] == "" if number is None else float(text[field]) == number


def test_the_command(tmp_path):
    first, second = (finished(write_run(tmp_path, fake_inputs(10, seed=s)), seed=s) for s in (1, 2))
    done = glore(
        "compare", str(first), str(second), "--json", str(tmp_path / "c.json"),
        "--csv", str(tmp_path / "c.csv"), "--pooled", str(tmp_path / "c.md"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fake-1 (seeds 1, 2)" in done.stdout
    assert "draft + global + local, by ORM" in done.stdout
    rows = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert all(math.isfinite(row["estimate"]["value"]) for row in rows if row["estimate"]["value"])
    assert "| **all** | **20** |" in (tmp_path / "c.md").read_text()


def test_what_cannot_be_compared_is_an_error(tmp_path):
    run = finished(write_run(tmp_path, fake_inputs(5)))
    with pytest.raises(RunError, match="is given twice"):
        compare_runs([run, tmp_path / "." / run.name])
    unfinished = write_run(tmp_path / "more", fake_inputs(5))
    with pytest.raises(RunError, match=r"evaluate is not done.*glore run"):
        compare_runs([run, unfinished])
    (run / "stages" / "test_samples" / "part-00000.parquet").unlink()
    with pytest.raises(RunError, match="test_samples"):
        compare_runs([run])
    done = glore("compare", str(unfinished))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_pooled_tables(tmp_path):
    runs = [finished(write_run(tmp_path, fake_inputs(8, seed=s)), seed=s) for s in (1, 2)]
    text = pooled_markdown(runs)
    assert "| fake-1 | 8 |" in text
    assert "| **all** | **16** |" in text
    finished(runs[1], seed=2, **{"evaluation.bootstrap_samples": 200})
    with pytest.raises(RunError, match="different settings"):
        pooled_markdown(runs)
