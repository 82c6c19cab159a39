"""One study over runs of several seeds: pooled numbers by value, what is refused, the command."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from glore.cli.app import app
from glore.config import RunConfig
from glore.config.resolved import resolved_recipe
from glore.errors import RunError
from glore.pipeline import run_stages
from glore.records import Solution, read_records
from glore.stages import build_stages
from glore.statistics import Resampler, mcnemar_p, wilson
from glore.studies import STUDIES, find_study, run_study
from glore.studies.measured import Observed, difference, find, number, read_measured, share
from glore.studies.over_runs import plan_over_runs, pool_study, study_over_runs
from glore.studies.pooled import SeedRun, pooled_numbers, seed_views
from glore.studies.study import configured
from support.pretend_models import config_of, pretend
from support.small_stages import contents


def seed_run(seed: int, questions: Sequence[str], *numbers: Observed) -> SeedRun:
    return SeedRun(f"r{seed}", seed, {f"p{i}": q for i, q in enumerate(questions)}, numbers)


def keeping(questions: Sequence[str], n_draws: int = 500) -> Resampler:
    return Resampler(questions, n_draws=n_draws, keeps=True)


A, B = ["a", "b", "c", "d"], ["e", "f", "g", "h"]


def test_shares_of_different_questions_are_one_share_with_wilson_s_interval() -> None:
    runs = [
        seed_run(0, A, share("t", "way", "right", keeping(A).share(A, [1, 1, 1, 0]))),
        seed_run(1, B, share("t", "way", "right", keeping(B).share(B, [0, 0, 1, 0]))),
    ]
    (m,) = pooled_numbers(runs, 500, 0)
    assert (m.value, m.low, m.high, m.n) == dataclasses.astuple(wilson(4, 8))


def test_a_question_of_two_seeds_is_drawn_with_both() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    one = share("t", "way", "right", keeping(A).share(A, values))
    (m,) = pooled_numbers([seed_run(0, A, one), seed_run(1, A, one)], 500, 0)
    alone = Resampler(A, n_draws=500).mean(A, values)
    assert (m.value, m.low, m.high, m.n) == (alone.value, alone.low, alone.high, 8)


def test_a_difference_keeps_its_pairs_and_mcnemar_s_test() -> None:
    def gain(questions: list[str], first: list[float], second: list[float]) -> Observed:
        return difference("t", ("a", "b"), "−", keeping(questions).paired(questions, first, second))

    runs = [
        seed_run(0, A, gain(A, [1, 1, 0, 0], [0, 1, 0, 0])),
        seed_run(1, B, gain(B, [1, 1, 0, 1], [1, 0, 1, 0])),
    ]
    (m,) = pooled_numbers(runs, 500, 0)
    both = Resampler([*A, *B], n_draws=500).mean([*A, *B], [1, 0, 0, 0, 0, 1, -1, 1])
    assert (m.value, m.low, m.high, m.n) == (both.value, both.low, both.high, 8)
    assert (m.gained, m.lost, m.p) == (3, 1, mcnemar_p(3, 1))
    shared = [runs[0], dataclasses.replace(runs[0], seed=1)]
    assert pooled_numbers(shared, 500, 0)[0].p is None, "the same questions are not independent"


def test_a_statistic_is_that_of_all_observations_and_not_a_mean_of_seeds() -> None:
    def recall(questions: list[str], found: list[int], there: list[int]) -> Observed:
        columns = np.asarray([found, there], dtype=float).T
        return share(
            "t",
            "way",
            "recall",
            dataclasses.replace(
                keeping(questions).estimate(questions, columns, lambda s: s[..., 0] / s[..., 1]),
                n=sum(there),
            ),
        )

    runs = [seed_run(0, A, recall(A, [1, 0, 0, 0], [1, 0, 0, 0]))]
    runs.append(seed_run(1, B, recall(B, [0, 0, 0, 1], [1, 1, 1, 1])))
    (m,) = pooled_numbers(runs, 500, 0)
    assert (m.value, m.n) == (2 / 5, 5)


def test_counts_add_up_and_of_other_numbers_the_mean_is_taken() -> None:
    def run(seed: int, count: float, t: float | None) -> SeedRun:
        return seed_run(
            seed, A, number("t", "r", "drafts", count, total=True), number("t", "r", "T", t)
        )

    drafts, t = pooled_numbers([run(0, 5, 0.25), run(1, 7, 0.75), run(2, 1, None)], 10, 0)
    assert (drafts.value, t.value) == (13, 0.5)


def test_the_points_of_a_line_stay_apart() -> None:
    def run(seed: int, questions: list[str], xs: tuple[float, float]) -> SeedRun:
        few, many = (keeping(questions).share(questions, v) for v in ([1, 0, 0, 0], [1, 1, 1, 1]))
        return seed_run(
            seed,
            questions,
            share("curve", "way", "right", few, xs[0]),
            share("curve", "way", "right", many, xs[1]),
        )

    runs = [run(0, A, (10.0, 20.0)), run(1, B, (12.0, 24.0))]
    pooled = pooled_numbers(runs, 100, 0)
    assert [(m.x, m.value, m.n) for m in pooled] == [(11.0, 0.25, 8), (22.0, 1.0, 8)]
    (view,) = seed_views(runs, pooled)
    assert [row[1] for row in view.rows] == ["right at 11, %", "right at 22, %"]


def test_a_number_that_one_seed_lacks_is_that_of_the_others() -> None:
    step = share("t", "step 5", "fixed", keeping(A).share(A[:2], [1, 0]))
    empty = share("t", "step 5", "fixed", None)
    runs = [seed_run(0, B), seed_run(1, A, step), seed_run(2, B, empty)]
    (m,) = pooled_numbers(runs, 500, 0)
    assert (m.value, m.n) == (0.5, 2)
    (view,) = seed_views(runs, [m])
    assert view.columns[2:6] == ("r0 (seed 0)", "r1 (seed 1)", "r2 (seed 2)", "all")
    assert [cell if cell is None else cell.value for cell in view.rows[0][2:6]] == [  # type: ignore[union-attr]
        *(None, 0.5, None, 0.5)
    ]


def test_ids_of_problems_and_solutions_say_nothing_about_other_seeds() -> None:
    run = seed_run(3, ["how many?"])
    assert run.cluster("p0") == "how many?"
    assert run.cluster("samples/p0/1") == "seed 3/samples/p0/1"
    assert run.cluster("what? 1/2 of 4") == "what? 1/2 of 4"


def test_numbers_without_observations_are_a_mistake_of_the_study() -> None:
    bare = share("t", "r", "c", wilson(1, 2))
    with pytest.raises(ValueError, match="no observations"):
        pooled_numbers([seed_run(0, A, bare)], 10, 0)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=4))
def test_the_pooled_share_is_that_of_all_questions(flags: list[list[bool]]) -> None:
    runs = []
    for seed, mine in enumerate(flags):
        questions = [f"{seed}-{i}" for i in range(len(mine))]
        found = keeping(questions, 20).share(questions, [float(f) for f in mine])
        runs.append(seed_run(seed, questions, share("t", "r", "c", found)))
    (m,) = pooled_numbers(runs, 20, 0)
    everything = [f for mine in flags for f in mine]
    expected = wilson(sum(everything), len(everything))
    assert (m.value, m.low, m.high, m.n) == dataclasses.astuple(expected)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunConfig]]:
    """Runs of seeds 0 and 1."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch)
        config = config_of(tmp_path_factory.mktemp("runs"))
        evaluation = config.evaluation.model_copy(update={"bootstrap_samples": 2000})
        config = config.model_copy(update={"evaluation": evaluation})
        made = [config.model_copy(update={"name": f"s{n}", "seed": n}) for n in (0, 1)]
        for one in made:
            run_stages(build_stages(one), one)
        yield made


@pytest.fixture
def runs(finished: list[RunConfig], tmp_path: Path) -> list[RunConfig]:
    """Copies of the finished runs, for tests that write."""
    for config in finished:
        shutil.copytree(config.run_dir, tmp_path / config.name)
    return [c.model_copy(update={"runs_dir": str(tmp_path)}) for c in finished]


@pytest.mark.parametrize("name", STUDIES)
def test_one_run_pooled_has_the_study_s_own_numbers(
    runs: list[RunConfig], tmp_path: Path, name: str
) -> None:
    """Every study: each of its numbers is pooled from what lies behind it, with the interval."""
    study, out = find_study(name), tmp_path / "pooled"
    run_study(study, runs[0])
    section = pool_study(study, runs[:1], out)
    own = runs[0].run_dir / "studies" / name
    for stage in sorted(p.name for p in (out / "stages").iterdir()):
        assert read_measured(out, stage) == read_measured(own, stage)
    assert [v.rows for v in section.tables] == [v.rows for v in study.tables(runs[0], own)]
    for view in section.tables:
        assert (out / f"{view.id}.csv").read_text() == (own / f"{view.id}.csv").read_text()


def test_what_is_missing_is_run_and_the_order_of_runs_changes_nothing(
    runs: list[RunConfig], tmp_path: Path
) -> None:
    study = find_study("rerank")
    run_study(study, runs[1])
    states = [{p.state for p in plan} for plan in plan_over_runs(study, runs)]
    assert states == [{"computed"}, {"reused"}]
    section = study_over_runs(study, runs, tmp_path / "a")
    study_over_runs(study, runs[::-1], tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    pooled = read_measured(tmp_path / "a", "rerank_measured")
    each = [read_measured(c.run_dir / "studies" / "rerank", "rerank_measured") for c in runs]
    for m in pooled:
        values = [find(one, m.table, m.row, m.column) for one in each]
        assert m.n == sum(v.n for v in values)
        if m.value is not None:
            mean = sum((v.value or 0) * v.n for v in values) / m.n
            assert m.value == pytest.approx(mean), "as many questions a seed: the mean"
    assert "s0 (seed 0), s1 (seed 1)" in section.about
    with (tmp_path / "a" / "rerank-by-seed.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(m.table == "rerank" for m in pooled)
    first = find(pooled, "rerank", ("ORM", "final"), "K = 1")
    row = next(r for r in rows if (r["row"], r["number"]) == ("ORM · final", "K = 1, %"))
    assert float(row["all"]) == pytest.approx(100 * (first.value or 0))
    assert row["n of all"] == str(first.n)
    text = (tmp_path / "a" / "tables.md").read_text(encoding="utf-8")
    assert "### Rerank · accuracy by reward model and aggregate · seed by seed" in text
    assert (tmp_path / "a" / "rerank-by-seed.tex").exists()


def again(config: RunConfig, path: Path, **changes: object) -> RunConfig:
    """A copy of a run under another name and with other settings, as config.yaml has them."""
    shutil.copytree(config.run_dir, path)
    other = config.model_copy(update={"name": path.name, **changes})
    (path / "config.yaml").write_text(resolved_recipe(other))
    return other


def test_runs_that_are_no_seeds_of_one_recipe_are_refused(
    runs: list[RunConfig],
    finished: list[RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = find_study("pessimism")
    with pytest.raises(RunError, match="is given twice"):
        plan_over_runs(study, [runs[0], runs[0]])
    copy = again(runs[0], tmp_path / "copy")
    with pytest.raises(RunError, match=r"both have seed 0.*seed=N"):
        plan_over_runs(study, [runs[0], copy])
    watched = again(runs[1], tmp_path / "watched", track="tensorboard", keep="final")
    assert len(plan_over_runs(study, [runs[0], watched])) == 2, "these change no result"
    other = runs[1].model_copy(
        update={
            "name": "other",
            "labels": runs[1].labels.model_copy(update={"rollouts": 2}),
        }
    )
    pretend(monkeypatch)
    run_stages(build_stages(other), other)
    with pytest.raises(RunError, match=r"labels\.rollouts: 4 → 2.*differ in the seed alone"):
        plan_over_runs(study, [runs[0], other])
    assert not (runs[0].run_dir / "studies").exists(), "nothing was computed"
    with pytest.raises(RunError, match="inside, the folder of the run"):
        study_over_runs(study, runs, runs[0].run_dir / "pooled")


def test_a_run_with_other_settings_of_the_study_is_refused(runs: list[RunConfig]) -> None:
    few = configured(find_study("where-refined"), {}, ["samples=2"])
    run_study(few, runs[1])
    before = contents(runs[0].run_dir)
    with pytest.raises(RunError, match=r"s1/.*samples=2, not 800.*--redo"):
        plan_over_runs(find_study("where-refined"), runs)
    assert contents(runs[0].run_dir) == before
    assert plan_over_runs(few, runs)[1][-1].state == "reused"


def test_numbers_of_another_release_are_refused(runs: list[RunConfig], tmp_path: Path) -> None:
    from glore.records import write_records
    from glore.studies.measured import Measured

    run_study(find_study("rerank"), runs[0])
    stage = runs[0].run_dir / "studies/rerank/stages/rerank_measured"
    first, *rest = read_measured(runs[0].run_dir / "studies/rerank", "rerank_measured")
    (stage / "done.json").unlink()
    wrong = dataclasses.replace(first, value=(first.value or 0) + 0.1)
    write_records(stage / "part-00000.parquet", Measured, [wrong, *rest])
    with pytest.raises(RunError, match=r"other numbers now than those it wrote.*--redo"):
        pool_study(find_study("rerank"), runs[:1], tmp_path / "pooled")


def test_the_command(runs: list[RunConfig], tmp_path: Path) -> None:
    folders = [str(c.run_dir) for c in runs]
    runner = CliRunner()
    planned = runner.invoke(app, ["study", "pessimism", *folders, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert not (tmp_path / "pooled").exists()
    done = runner.invoke(app, ["study", "pessimism", *folders])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pooled" / "pessimism" / "tables.md").exists()
    assert "pooled/pessimism/tables.md" in done.output.replace("\n", "")
    place = ["--out", str(tmp_path / "w")]
    own = runner.invoke(app, ["study", "where-refined", *folders, "samples=2", *place])
    assert own.exit_code == 0, own.output
    stage = runs[1].run_dir / "studies/where-refined/stages/wrong_solutions_refined"
    assert len(read_records(sorted(stage.glob("global-*.parquet")), Solution)) > 0
    assert (tmp_path / "w" / "tables.md").exists()
