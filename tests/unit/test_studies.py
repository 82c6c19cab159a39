"""Studies over a finished run: what they read and write, and that they leave the run alone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import Field

from glore.config import RunConfig, Settings
from glore.errors import ConfigError, RunError
from glore.pipeline import Stage, StageContext, declare
from glore.pipeline.marks import read_done
from glore.records import Solution, StepScores, read_records
from glore.report import build_report
from glore.report.views import MODEL_NAMES
from glore.stages.common import problems_by_id, score
from glore.stages.contrastive import contrastive
from glore.studies import STUDIES, Study, find_study, run_study
from glore.studies import study as study_module
from glore.studies.measured import Measured, find, number, pivot, read_measured
from glore.studies.run import study_sections, study_tables
from glore.studies.study import configured, own_settings
from support.pretend_models import pretend, pretended_run
from support.small_stages import contents

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    with pretended_run(tmp_path_factory.mktemp("runs")) as (config, _):
        yield config


@pytest.fixture
def run(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """A copy of the finished run, for tests that write."""
    shutil.copytree(finished.run_dir, tmp_path / "t")
    return finished.model_copy(update={"runs_dir": str(tmp_path)})


def numbers_of(run: RunConfig, name: str) -> list[Measured]:
    """What the last stage of a study measured."""
    stage = find_study(name).stages(run)[-1].name
    return read_measured(run.run_dir / "studies" / name, stage)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_adds_a_folder_to_the_run_and_is_reused(run: RunConfig, name: str) -> None:
    study, before = find_study(name), contents(run.run_dir)
    assert {p.state for p in run_study(study, run, dry_run=True)} == {"computed"}
    assert contents(run.run_dir) == before
    run_study(study, run)
    made = contents(run.run_dir)
    assert {path: made[path] for path in before} == before, "the run itself stays as it is"
    folder = f"studies/{name}/"
    places = (folder, *(f"studies/{other}/stages/" for other in study.after), "log/")
    places += tuple(f"studies/{other}/models/" for other in study.after)
    assert all(path.startswith(places) for path in made.keys() - before.keys())
    assert {p.state for p in run_study(study, run)} == {"reused"}
    tables = study_tables(study, run)
    assert tables
    text = (run.run_dir / folder / "tables.md").read_text(encoding="utf-8")
    for view in tables:
        assert view.rows, view.id
        assert len(set(view.columns)) == len(view.columns), "a CSV with two columns of one name"
        assert f"### {view.title}" in text
        lines = (run.run_dir / folder / f"{view.id}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + len(view.rows)
    for place in (run.run_dir / folder / "stages").iterdir():
        parts = sorted(place.glob("part-*.parquet"))
        if parts and "gained" in pq.read_schema(parts[0]).names:
            found = read_records(parts, Measured)
            cells = Counter(
                cell for cell, _ in {((m.table, m.row, m.column, m.x), m.value) for m in found}
            )
            assert max(cells.values()) == 1, "two numbers for one cell"
            shares = [m for m in found if m.kind == "share" and m.value is not None]
            plain = [m for m in shares if "balanced" not in m.column and "F1" not in m.column]
            assert all(m.low != m.high for m in plain if m.value in (0, 1)), "certain"


def test_where_refines_the_wrong_drafts_from_their_first_wrong_step(run: RunConfig) -> None:
    from glore.evaluation import read_evaluation

    run_study(find_study("where"), run)
    stage = run.run_dir / "studies/where/stages/refinements_from_first_wrong_step"
    made = read_records(sorted(stage.glob("part-*.parquet")), Solution)
    found = numbers_of(run, "where")
    test = run.run_dir / "stages"
    drafts = read_records(sorted((test / "test_drafts").glob("part-*.parquet")), Solution)
    wrong = [d.id for d in drafts if d.correct == "wrong"]
    assert [s.draft_id for s in made] == wrong
    evaluation = read_evaluation(run.run_dir / "report" / "evaluation.json")
    pipeline = next(r.accuracy for r in evaluation.figure4 if r.way == "reranked")
    own, where, when, which = [m for m in found if m.column == "accuracy"]
    assert (own.value, own.n) == (pipeline.value, len(drafts))
    assert where.value <= when.value <= which.value
    own, placed = [m for m in found if m.column == "fixed"]
    none, gain = [m for m in found if m.table == "where-fixed" and m.kind == "difference"]
    assert own.value == next(
        r.fixed.value for r in evaluation.table3 if r.refiners == ("local_sorm",)
    )
    assert placed.value == sum(s.correct == "right" for s in made) / len(wrong)
    assert none.value is None
    assert gain.value == pytest.approx(placed.value - own.value)


def test_rerank_agrees_with_the_run_where_they_measure_the_same(run: RunConfig) -> None:
    from glore.evaluation import read_evaluation

    run_study(find_study("rerank"), run)
    found = numbers_of(run, "rerank")
    curves = read_evaluation(run.run_dir / "report" / "evaluation.json").curves
    names = {"majority": (MODEL_NAMES["majority"], ""), "pass": (MODEL_NAMES["pass"], "")}
    for point in curves:
        row = names.get(point.way, (MODEL_NAMES[point.way], "final"))
        cell = find(found, "rerank", row, f"K = {point.k}")
        assert (cell.value, cell.low) == (point.accuracy.value, point.accuracy.low)
    finals = [m for m in found if m.table == "rerank" and m.row[1] in ("", "final")]
    assert len([m for m in finals if "weighted" not in m.row[0]]) == len(curves)


def test_rerank_chooses_among_candidates_as_the_run_does(run: RunConfig) -> None:
    from glore.evaluation import read_evaluation

    run_study(find_study("rerank"), run)
    folder = run.run_dir / "studies" / "rerank"
    found = read_measured(folder, "rerank_candidates_measured")
    figure = {
        r.way: r.accuracy
        for r in read_evaluation(run.run_dir / "report" / "evaluation.json").figure4
    }
    of_run = (MODEL_NAMES["orm"], run.evaluation.aggregate)
    for row, way in (
        (("the greedy draft", ""), "greedy"),
        (of_run, "reranked"),
        (("the gold answer", ""), "perfect"),
    ):
        cell = find(found, "rerank-candidates", row, "accuracy")
        assert (cell.value, cell.n) == (figure[way].value, figure[way].n)
    same = find(found, "rerank-candidates", of_run, "− the run's choice")
    assert (same.value, same.gained, same.lost) == (0, 0, 0)
    gain = find(found, "rerank-candidates", ("the gold answer", ""), "− the greedy draft")
    assert gain.value == pytest.approx(figure["perfect"].value - figure["greedy"].value)
    assert gain.lost == 0


def test_rerank_draws_what_the_run_lacks(run: RunConfig) -> None:
    fewer = configured(find_study("rerank"), {}, ["samples=3"])
    with pytest.raises(ConfigError, match=r"samples: the run has 4 .* got 3; give a larger number"):
        run_study(fewer, run, dry_run=True)
    more = configured(find_study("rerank"), {}, ["samples=10"])
    assert [p.name for p in run_study(more, run, dry_run=True)] == [
        "more_samples",
        "more_scores",
        "rerank_candidates_measured",
        "rerank_measured",
    ]
    run_study(more, run)
    said = (run.run_dir / "studies/rerank/tables.md").read_text(encoding="utf-8")
    assert " Settings: samples=10.\n" in said
    found = numbers_of(run, "rerank")
    assert {m.x for m in found if m.table == "rerank"} == {1, 2, 4, 8, 10}
    drawn = read_records(
        sorted((run.run_dir / "studies/rerank/stages/more_samples").glob("part-*.parquet")),
        Solution,
    )
    assert len(drawn) == 8 * 6, "the run has four of ten samples of each of eight questions"
    passed = [m.value for m in found if m.row == (MODEL_NAMES["pass"], "")]
    assert passed == sorted(passed)


def test_a_run_that_is_not_finished_is_refused(run: RunConfig) -> None:
    shutil.rmtree(run.run_dir / "stages" / "test_scores")
    with pytest.raises(RunError, match=r"reads a finished run, but stage test_scores .* glore run"):
        run_study(find_study("rerank"), run)
    reward = run.reward.model_copy(update={"temperature": 0.7})
    other = run.model_copy(update={"reward": reward})
    with pytest.raises(RunError, match="stage samples would be computed"):
        run_study(find_study("rerank"), other, dry_run=True)
    assert not (run.run_dir / "studies").exists()


@pytest.mark.parametrize("name", STUDIES)
def test_every_stage_of_a_study_says_which_models_it_opens(run: RunConfig, name: str) -> None:
    """Else it may open any, so that it refuses a run that kept its final models alone."""
    silent = [s.name for s in find_study(name).stages(run) if s.opens is None]
    assert not silent


def test_a_study_sees_only_what_its_stages_declare(run: RunConfig) -> None:
    def peek(ctx: StageContext) -> None:
        ctx.count(threshold=ctx.config.evaluation.threshold)

    stage = Stage("peek", peek, inputs=("test_drafts",))
    study = Study("peek", "Reads too much.", lambda config: (stage,), lambda config, folder: [])
    with pytest.raises(ValueError, match=r"reads the setting evaluation\.threshold"):
        run_study(study, run)
    lost = dataclasses.replace(stage, inputs=("test_draft",))
    study = dataclasses.replace(study, stages=lambda config: (lost,))
    with pytest.raises(ValueError, match="study peek: stage peek reads unknown test_draft"):
        run_study(study, run)


class Given(Settings):
    k: int = Field(2, ge=1)


def counting(settings: Settings) -> Study:
    """A study that counts to its own setting."""
    assert isinstance(settings, Given)

    def count(ctx: StageContext) -> None:
        ctx.write([number("t", "k", "value", settings.k)], Measured)

    stage = Stage("count", count, inputs=("test_drafts",), own={"k": settings.k})
    return Study(
        "counting",
        "Counts <to> k.",
        lambda config: (stage,),
        lambda config, folder: [pivot(read_measured(folder, "count"), "t", "T", "", "what")],
        settings=settings,
        build=counting,
    )


def test_a_study_with_settings_of_its_own(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "STUDIES", {"counting": "test_studies:FIRST"})
    monkeypatch.setitem(globals(), "FIRST", counting(Given()))
    monkeypatch.setitem(sys.modules, "test_studies", sys.modules[__name__])
    found = find_study("counting")
    mine, others = own_settings(found, ["k=5", "engine.max_rows=8"])
    assert (mine, others) == (["k=5"], ["engine.max_rows=8"])
    five = configured(found, {}, mine)
    run_study(five, run)
    (section,) = study_sections(run)
    assert section.tables[0].text_rows == (("k", "5"),)
    assert not section.stale
    with pytest.raises(
        RunError, match=r"the study .* \(study\.k 5 → 2\); to replace them, add --redo$"
    ):
        run_study(found, run)
    run_study(found, run, redo=True)
    (section,) = study_sections(run)
    assert section.tables[0].text_rows == (("k", "2"),)
    page = build_report(run.run_dir, [section]).read_text(encoding="utf-8")
    assert 'id="study-counting"' in page
    assert "Counts &lt;to&gt; k." in page
    assert "../studies/counting/t.csv" in page
    with pytest.raises(ConfigError, match=r"override 'k=0': k: input should be greater"):
        configured(found, {}, ["k=0"])
    with pytest.raises(ConfigError, match=r"unknown key 'kk'; did you mean k\?"):
        configured(found, {}, ["kk=1"])
    with pytest.raises(ConfigError, match="has no settings of its own, got 'k=1'"):
        configured(find_study_in_package(), {}, ["k=1"])


def test_a_study_trains_a_contrastive_reward_model_and_scores_with_it(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    @declare("ranked", inputs=("contrastive", "test_samples"), reads=("engine",))
    def ranked(ctx: StageContext) -> None:
        samples = ctx.read("test_samples", Solution)
        score(ctx, "contrastive", samples, problems_by_id(ctx, "test"))

    study = Study("pairs", "Pairs.", lambda _: (contrastive, ranked), lambda *_: [])
    world = pretend(monkeypatch)
    run_study(study, run)
    assert world.bases == {"contrastive": "student"}
    texts = [("".join(p.right), "".join(p.wrong)) for p in world.trained["contrastive"]]
    assert all("#### 10" in right and "#### 10" not in wrong for right, wrong in texts)
    folder = run.run_dir / "studies" / "pairs"
    done = read_done(folder / "stages" / "contrastive")
    assert done is not None
    assert done.counts["pairs"] == len(texts) > 0
    found = read_records(folder / "stages" / "ranked" / "part-00000.parquet", StepScores)
    assert {s.model for s in found} == {"contrastive"}
    assert len(found) == 8 * 4
    assert {p.state for p in run_study(study, run)} == {"reused"}


def test_a_study_reads_the_stages_of_another_and_computes_only_what_it_needs(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(ctx: StageContext) -> None:
        ctx.write([number("t", "k", "value", 7)], Measured)

    def copy(ctx: StageContext) -> None:
        ctx.write(ctx.read("first", Measured), Measured)

    first = Stage("first", write, inputs=("test_drafts",))
    unread = Stage("unread", write, inputs=("test_drafts",))
    source = Study("source", "Writes.", lambda _: (first, unread), lambda *_: [])
    reader = Study(
        "reader",
        "Reads.",
        lambda _: (Stage("copy", copy, inputs=("first",)),),
        lambda config, folder: [pivot(read_measured(folder, "copy"), "t", "T", "", "what")],
        after=("source",),
    )
    monkeypatch.setattr(study_module, "STUDIES", {"source": "test_studies:SOURCE"})
    monkeypatch.setitem(globals(), "SOURCE", source)
    monkeypatch.setitem(sys.modules, "test_studies", sys.modules[__name__])
    plans = {p.name: p.state for p in run_study(reader, run)}
    assert plans == {"first": "computed", "copy": "computed"}
    (view,) = study_tables(reader, run)
    assert view.text_rows == (("k", "7"),)
    studies = run.run_dir / "studies"
    assert (studies / "source" / "stages" / "first" / "done.json").exists()
    assert not (studies / "source" / "stages" / "unread").exists()
    assert {p.name: p.state for p in run_study(source, run)} == {
        "first": "reused",
        "unread": "computed",
    }


def find_study_in_package() -> Study:
    from glore.studies.where import STUDY

    return STUDY


def test_the_report_does_not_show_results_of_another_run(run: RunConfig) -> None:
    run_study(find_study("rerank"), run)
    assert not study_sections(run)[0].stale
    other = run.evaluation.model_copy(update={"bootstrap_samples": 200})
    (section,) = study_sections(run.model_copy(update={"evaluation": other}))
    assert "bootstrap_samples 100 → 200" in section.stale or "bootstrap_samples" in section.stale
    assert not section.tables
    (run.run_dir / "studies" / "rerank" / "settings.json").write_text("{")
    (section,) = study_sections(run)
    assert "settings.json" in section.stale
    page = build_report(run.run_dir, [section]).read_text(encoding="utf-8")
    assert "glore study rerank" in page


def test_a_name_that_is_no_study_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"there is no study 'rernk'; did you mean rerank\?"):
        find_study("rernk")


def test_a_study_of_another_package_runs_by_its_name(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = importlib.metadata.EntryPoint("lengths", "extend_study:STUDY", "glore.studies")
    points = importlib.metadata.EntryPoints([entry])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    monkeypatch.syspath_prepend(EXAMPLES)
    study = find_study("lengths")
    run_study(study, run)
    drafts = read_records(
        sorted((run.run_dir / "stages" / "test_drafts").glob("*.parquet")), Solution
    )
    (view,) = study_tables(study, run)
    assert sum(int(row[2]) for row in view.rows) == len(drafts)
    assert {int(row[0]) for row in view.rows} == {len(d.steps) for d in drafts}
    sys.modules.pop("extend_study", None)
