"""The studies that mostly read again what a run has: their numbers, against the run's own tables,
against slow twins, and by hand.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import glore.stages.common
from glore.config import LabelSettings, RunConfig
from glore.errors import ConfigError, DataError, GloreError, RunError
from glore.evaluation import Evaluation, EvaluationInputs, read_evaluation
from glore.pipeline import run_stages
from glore.prompts import PLAIN
from glore.records import PrefixTrials, RefinementPair, Solution, read_records
from glore.stages import build_stages
from glore.step_layouts.apart import GloreLayout
from glore.step_layouts.parts import score_positions, token_ids
from glore.step_layouts.question import QuestionScored
from glore.studies import find_study, run_study
from glore.studies.error_kinds import error_kind, false_equation
from glore.studies.labels import first_rollouts, scan_cost
from glore.studies.measured import Measured, find, read_measured
from glore.studies.processbench import Judged, best_threshold
from glore.studies.refining import mark_of
from glore.studies.run import study_sections
from glore.studies.study import configured
from glore.studies.where_refined import WrongSolution
from glore.training.examples import LMExample
from glore.where import label_drafts
from support.fake_records import solution
from support.fakes import LastLineTask
from support.pretend_models import all_problems, config_of, pretend, read_stage
from support.tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch)
        config = config_of(tmp_path_factory.mktemp("runs"))
        run_stages(build_stages(config), config)
        yield config


@pytest.fixture
def run(finished: RunConfig, tmp_path: Path) -> RunConfig:
    shutil.copytree(finished.run_dir, tmp_path / "t")
    return finished.model_copy(update={"runs_dir": str(tmp_path)})


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """A run without an SFT student, of a task that does not know the truth of steps."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch)
        monkeypatch.setattr(
            glore.stages.common,
            "open_task",
            lambda *_: LastLineTask(all_problems()),
        )
        config = config_of(tmp_path_factory.mktemp("runs"), bootstrap="prompt")
        run_stages(build_stages(config), config)
        yield config


@pytest.mark.parametrize(
    "name",
    [
        "generalisation",
        "labels",
        "pessimism",
        "postprocessing",
        "processbench",
        "rerank",
        "when-to-stop",
        "where-refined",
    ],
)
def test_a_run_without_truth_and_without_sft_student_can_be_studied(
    prompted: RunConfig, name: str
) -> None:
    run_study(find_study(name), prompted)
    (section,) = (s for s in study_sections(prompted) if s.name == name)
    assert not section.stale
    assert any(view.rows for view in section.tables)
    if name == "generalisation":
        assert section.findings[0].startswith("There are no two students to cross")
    folder = prompted.run_dir / "studies" / name
    for chart in section.charts:
        assert (folder / f"{chart.id}.svg").read_text().startswith("<svg")


def measured(run: RunConfig, name: str, *overrides: str, redo: bool = False) -> list[Measured]:
    """Run a study, and read what its last stage measured."""
    study = configured(find_study(name), {}, overrides)
    run_study(study, run, redo=redo)
    return read_measured(run.run_dir / "studies" / name, study.stages(run)[-1].name)


def evaluation_of(run: RunConfig) -> Evaluation:
    return read_evaluation(run.run_dir / "report" / "evaluation.json")


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("Mia: 12 + 9 = 21", "content"),
        ("Mia: 12 + 9 = 22", "equation"),
        ("She has <<12*2=25>>25 pens.", "equation"),
        ("That costs $1,200 + $34 = $1,234 in total.", "content"),
        ("Dan: ? + Kim 8 = 10", "content"),
        ("Check: Dan B 10 + 8 = 11, 11 = 11", "equation"),
        ("Half of 10 is 10 / 0 = 5", "content"),
        ("((((1 + 1 = 2", "content"),
        ("so 5 = 5.0 and 1/2 = 0.5", "content"),
        ("#### 21", "answer"),
        ("no numbers", "content"),
        ("3 × 4 = 13", "equation"),
        ("-3 + 5 = 2", "content"),
    ],
)
def test_kinds_of_errors(step: str, kind: str) -> None:
    assert error_kind(step) == kind


@given(st.integers(-99, 99), st.integers(1, 99), st.sampled_from("+-*"))
def test_true_equations_hold_and_false_ones_do_not(a: int, b: int, sign: str) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert not false_equation(f"so there are {a} {sign} {b} = {value} pens")
    assert false_equation(f"so there are {a} {sign} {b} = {value + 1} pens")


@given(st.text(max_size=300))
def test_any_text_has_a_kind(text: str) -> None:
    assert error_kind(text) in ("equation", "content", "answer")


def trial(draft: Solution, i: int, verdicts: str) -> PrefixTrials:
    """A record from letters: r right, w wrong; every rollout costs 10 tokens."""
    n = len(verdicts)
    words = {"r": "right", "w": "wrong"}
    return PrefixTrials(
        draft.id, i, ("x",) * n, tuple(words[v] for v in verdicts), (True,) * n, 10 * n, True
    )


def test_the_cost_of_a_scan_by_hand() -> None:
    wrong = solution("p1", "0", ("a", "b", "c", "#### 3"), "wrong")
    right = solution("p2", "0", ("a", "b", "#### 1"), "right")
    trials = [
        trial(wrong, 1, "wwrw"),
        trial(wrong, 2, "wrrr"),
        trial(wrong, 3, "wwww"),
        trial(right, 1, "rrrr"),
        trial(right, 2, "rrrr"),
    ]
    found = scan_cost(EvaluationInputs("", (), (wrong, right), ()), trials, 4)
    # From the end: four without success, then one failure and the success; right ones cost nothing.
    assert find(found, "labels-cost", "backward scan", "rollouts a draft").value == 6 / 2
    assert find(found, "labels-cost", "backward scan", "tokens a draft").value == 60 / 2
    assert find(found, "labels-cost", "all 4 at every step", "rollouts a draft").value == 20 / 2


@given(st.lists(st.text("rw", min_size=6, max_size=6), min_size=2, max_size=4), st.integers(1, 6))
def test_labels_of_fewer_rollouts_never_gain_a_good_step(verdicts: list[str], k: int) -> None:
    draft = solution("p", "0", ("s",) * (len(verdicts) + 1), "wrong")
    trials = [trial(draft, i, v) for i, v in enumerate(verdicts, start=1)]
    rule = LabelSettings(consistency="off", balance=False)
    few, all_of_them = (
        label_drafts([draft], t, rule, seed=0).labels[0].labels or ()
        for t in (first_rollouts(trials, k), trials)
    )
    assert len(few) == len(all_of_them)
    assert all(b or not a for a, b in zip(few, all_of_them, strict=True))


def test_labels_at_the_run_s_k_agree_with_the_run(run: RunConfig) -> None:
    found = measured(run, "labels", "rollouts=6")
    row = next(r for r in evaluation_of(run).agreement if r.where == "test" and r.rule == "as used")
    assert find(found, "labels-by-k", "K = 4", "agreement").value == row.agreement.value
    assert find(found, "labels-by-k", "K = 4", "false steps called good").value == (
        row.called_good.value
    )
    agreements = [m.x for m in found if m.table == "labels-by-k" and m.column == "agreement"]
    assert agreements == [1, 2, 4, 6]
    parts = sorted(
        (run.run_dir / "studies/labels/stages/full_test_rollouts").glob("part-*.parquet")
    )
    assert parts
    kinds = [m.row[0] for m in found if m.table == "labels-by-step"]
    steps = sum(m.value or 0 for m in found if m.table == "labels-by-step" and m.column == "steps")
    assert steps == row.agreement.n
    assert "true, in a right draft" in kinds


def test_the_bare_question_is_scored_and_nothing_else_changes() -> None:
    tokenizer = tiny_tokenizer()
    items = [("How many pens?", ("1 + 1 = 2", "#### 2")), ("Why?", ("#### 3",))]
    inner = GloreLayout(PLAIN)
    for before, after in zip(
        inner.encode(tokenizer, items),
        QuestionScored(inner).encode(tokenizer, items),
        strict=True,
    ):
        assert token_ids(after) == token_ids(before)
        first, *others = score_positions(after)
        assert others == score_positions(before)
        assert first == len(before[0]) - 1


def test_thresholds_start_from_the_run_s_pipeline(run: RunConfig) -> None:
    found = measured(run, "when-to-stop")
    ways = {r.way: r.accuracy.value for r in evaluation_of(run).figure4}
    assert find(found, "when-oracles", "none: the pipeline", "right").value == ways["reranked"]
    assert find(found, "when-oracles", "which", "right").value == ways["perfect"]
    own = find(found, "when-chosen", "the run's: no gate", "right, test")
    assert own.value == ways["reranked"]
    worth = {
        m.row[0]: m.value or 0 for m in found if m.table == "when-oracles" and m.kind == "share"
    }
    assert worth["when + how"] >= worth["how"] >= worth["none: the pipeline"]
    best = find(found, "when-chosen", "both chosen on dev", "right, dev").value or 0
    on_dev = [m.value or 0 for m in found if m.table == "when-sweep" and m.row[1] == "dev"]
    assert best >= max(on_dev)
    gate = {m.x: m.value for m in found if m.table == "when-sweep" and m.row == ("T_ORM", "test")}
    assert gate[1.0] == ways["reranked"]


def test_refinements_know_their_marks(run: RunConfig) -> None:
    found = measured(run, "where-refined", "samples=5")
    stage = run.run_dir / "studies/where-refined/stages/wrong_solutions_refined"
    wrong = read_records(sorted(stage.glob("wrong-*.parquet")), WrongSolution)
    local = read_records(sorted(stage.glob("local-*.parquet")), Solution)
    assert [(s.draft_id, mark_of(s)) for s in local] == [(w.solution_id, w.error) for w in wrong]
    assert sum(w.where == "samples" for w in wrong) <= 5
    whole = find(found, "refined-overlap", "greedy drafts", "global")
    table3 = {r.refiners: r.fixed for r in evaluation_of(run).table3}
    assert whole.n == table3["global",].n
    both, union, local_alone = (
        find(found, "refined-overlap", "greedy drafts", c).value or 0
        for c in ("both fix", "global ∪ local", "local")
    )
    assert union == pytest.approx((whole.value or 0) + local_alone - both)
    n = sum(
        m.value or 0 for m in found if m.table == "refined-by-position" and m.column == "drafts"
    )
    assert n == whole.n


def test_a_refiner_for_each_kind_learns_from_that_kind_alone(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pretend(monkeypatch)
    plain = measured(run, "where-refined", "samples=5")
    study = configured(find_study("where-refined"), {}, ["samples=5", "separate=true"])
    plans = {p.name: p.state for p in run_study(study, run, dry_run=True)}
    assert plans == {
        "wrong_solutions_refined": "reused",
        "global_refiner": "computed",
        "local_refiner": "computed",
        "wrong_solutions_refined_apart": "computed",
        "mixed_refiner_1": "computed",
        "mixed_refiner_2": "computed",
        "wrong_solutions_refined_mixed": "computed",
        "where_refined_measured": "computed",
    }
    with pytest.raises(RunError, match="--redo"):
        run_study(study, run)
    run_study(study, run, redo=True)
    folder = run.run_dir / "studies/where-refined"
    pairs = read_records(
        sorted((run.run_dir / "stages/pairs").glob("part-*.parquet")), RefinementPair
    )
    for kind in ("global", "local"):
        mine = [p for p in pairs if p.kind == kind]
        learned = [e for e in world.trained[f"{kind}_refiner"] if isinstance(e, LMExample)]
        assert [e.target for e in learned] == [
            tuple(f"{s}\n" for s in p.target_steps) for p in mine
        ]
        assert world.bases[f"{kind}_refiner"] == run.refiner.init
        made = read_records(
            sorted((folder / "stages/wrong_solutions_refined_apart").glob(f"{kind}-*.parquet")),
            Solution,
        )
        wrong = read_records(
            sorted((folder / "stages/wrong_solutions_refined").glob("wrong-*.parquet")),
            WrongSolution,
        )
        assert [s.draft_id for s in made] == [w.solution_id for w in wrong]
        asked = {r.segments for e in world.engines[f"{kind}_refiner"] for r in e.requests}
        assert len(asked) <= 2 * len(wrong)
    found = read_measured(folder, "where_refined_measured")
    assert [m for m in found if m.table in {p.table for p in plain}] == plain
    union = find(found, "refined-overlap-apart", "greedy drafts", "global ∪ local").value or 0.0
    one = find(found, "refined-overlap", "greedy drafts", "global ∪ local").value or 0.0
    gain = find(found, "refined-models", ("greedy drafts", "∪"), "each kind − one")
    assert gain.value == pytest.approx(union - one)
    titles = [view.title for view in study.tables(run, folder)]
    assert sum("a refiner for each kind" in title for title in titles) == 3
    said = study.findings(run, folder)
    assert any("of a refiner for each kind fixes" in sentence for sentence in said)
    first, second = (
        [e.target for e in world.trained[f"mixed_refiner_{n}"] if isinstance(e, LMExample)]
        for n in (1, 2)
    )
    targets = [tuple(f"{s}\n" for s in p.target_steps) for p in pairs]
    assert Counter([*first, *second]) == Counter(targets), "each pair is in one half"
    assert abs(len(first) - len(second)) <= 2
    n = sum(p.kind == "global" for p in pairs)
    assert (
        first[: -(-n // 2)]
        == [t for t, p in zip(targets, pairs, strict=True) if p.kind == "global"][::2]
    )


def test_pessimism_reads_the_score_before_the_first_step(run: RunConfig) -> None:
    found = measured(run, "pessimism")
    column = "mean score of the question"
    for model in ("ORM", "Balanced ORM", "SORM"):
        assert find(found, "pessimism-question", model, column).value == pytest.approx(0.6)
    rows = {
        r.model: r
        for r in evaluation_of(run).table1
        if (r.against, r.scope) == ("truth", "intermediate")
    }
    for name, model in (("ORM", "orm"), ("SORM", "sorm")):
        mine = find(found, "pessimism-gap", ("final student", "any number"), name)
        assert mine.value == pytest.approx(rows[model].natural.value)


def test_generalisation_has_the_run_s_own_numbers_on_its_diagonal(run: RunConfig) -> None:
    found = measured(run, "generalisation")
    of = {r.student: r for r in evaluation_of(run).table5}
    # The run reranks by its own aggregate, as the study does.
    for name, student in (("ORM_EI", "EI"), ("ORM_SFT", "SFT")):
        cell = find(found, "generalisation-rerank", name, f"{student} samples")
        assert cell.value == of[student].reranked.value  # type: ignore[union-attr]
    assert (run.run_dir / "studies/generalisation/models/sft_sorm").is_dir()
    missed = find(
        found,
        "generalisation-seen",
        ("ORM, final answers", "training"),
        "right ones called wrong",
    )
    samples = read_stage(run, "samples", Solution)
    assert missed.n == sum(s.correct == "right" for s in samples)  # type: ignore[attr-defined]


def test_postprocessing_relabels_without_touching_the_run(run: RunConfig) -> None:
    found = measured(run, "postprocessing")
    rows = list(dict.fromkeys(m.row[0] for m in found if m.table == "postprocessing"))
    assert rows == [
        "the run's SORM",
        "as used",
        "not propagated",
        "substrings (paper)",
        "last step alone",
        "no consistency",
        "not balanced",
    ]
    row = next(
        r for r in evaluation_of(run).agreement if r.where == "train" and r.rule == "as used"
    )
    mine = find(found, "postprocessing", "as used", "labels right")
    assert (mine.value, mine.n) == (row.agreement.value, row.agreement.n)


def rows_of(path: Path, n: int) -> Path:
    """ProcessBench's layout: half of the solutions are wrong at their second step."""
    rows = [
        {
            "id": f"{path.stem}-{i}",
            "generator": "m",
            "problem": f"q{i}",
            "steps": ["1 + 1 = 2", "2 + 1 = 3 false" if i % 2 else "2 + 8 = 10", "#### 10"],
            "final_answer_correct": not i % 2,
            "label": 1 if i % 2 else -1,
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_processbench_chooses_its_threshold_on_one_file(run: RunConfig, tmp_path: Path) -> None:
    gsm8k, math = (rows_of(tmp_path / f"{name}.jsonl", 10) for name in ("gsm8k", "math"))
    found = measured(run, "processbench", f"files=[{math},{gsm8k}]")
    t = find(found, "processbench", ("ORM", "math"), "T").value or 0
    assert 0.2 <= t < 0.9, "the pretended ORM says 0.9 or 0.2"
    for column in ("error accuracy", "correct accuracy", "F1"):
        assert find(found, "processbench", ("SORM", "gsm8k"), column).value == 1.0
    assert find(found, "processbench-average", "ORM", "average F1, %").value == 100
    assert find(found, "processbench", ("ORM", "math"), "with an error").value == 5
    rows_of(gsm8k, 12)  # another content, so the study no longer fits
    (section,) = study_sections(run)
    assert "content of study.files" in section.stale
    with pytest.raises(DataError, match=r"files: .* is no file"):
        measured(run, "processbench", f"files=[{tmp_path}/none.json]")
    with pytest.raises(ConfigError, match="unknown key 'file'; did you mean files"):
        measured(run, "processbench", "file=x")


def test_processbench_refuses_what_it_can_t_judge_before_it_begins(
    run: RunConfig, tmp_path: Path
) -> None:
    file, broken = rows_of(tmp_path / "gsm8k.jsonl", 4), tmp_path / "broken.jsonl"
    broken.write_text('{"problem": "q", "steps": ["s"], "label": 1}\n')
    for said, *settings in (
        ("layout: 'qwen' is how the model of model=FOLDER", "layout=qwen"),
        ("no model folder", f"model={tmp_path}/none"),
        ("is given twice", f"files=[{file},{tmp_path}/../{tmp_path.name}/gsm8k.jsonl]"),
        ("line 1: label: must be the 0-based index", f"files=[{file},{broken}]"),
    ):
        with pytest.raises(GloreError, match=re.escape(said)):
            run_study(configured(find_study("processbench"), {}, settings), run, dry_run=True)


def test_solutions_too_long_for_the_run_s_models_are_judged_wrong(
    run: RunConfig, tmp_path: Path
) -> None:
    file = rows_of(tmp_path / "gsm8k.jsonl", 4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    long = [{**row, "problem": row["problem"] * 100} for row in rows[:2]]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *long]))
    found = measured(run, "processbench", f"files=[{file}]")
    for column in ("error accuracy", "correct accuracy"):
        m = find(found, "processbench", ("SORM", "gsm8k"), column)
        assert (m.value, m.n) == (pytest.approx(2 / 3), 3)
    assert find(found, "processbench", ("SORM", "gsm8k"), "too long").value == 2


def test_files_of_one_name_are_kept_apart_by_their_folders(run: RunConfig, tmp_path: Path) -> None:
    files = []
    for name, n in (("gsm8k", 6), ("math", 3)):
        (tmp_path / name).mkdir()
        files.append(rows_of(tmp_path / name / "test.jsonl", n))
    found = measured(run, "processbench", f"files=[{','.join(map(str, files))}]")
    assert find(found, "processbench", ("SORM", "gsm8k/test"), "with an error").value == 3
    assert find(found, "processbench", ("SORM", "math/test"), "with an error").value == 1
    assert find(found, "processbench", ("SORM", "math/test"), "solutions that chose T").value == 6
    first_only = rows_of(tmp_path / "gsm8k.jsonl", 1)  # nothing but a right one: no F1
    found = measured(run, "processbench", f"files=[{first_only}]", redo=True)
    assert find(found, "processbench", ("SORM", "gsm8k"), "solutions that chose T").value == 0
    assert find(found, "processbench", ("SORM", "gsm8k"), "T").value == run.evaluation.threshold


def test_the_best_threshold_by_hand() -> None:
    judged = [
        Judged("gsm8k", "a", 1, 2, (0.8, 0.3)),
        Judged("gsm8k", "b", 0, 2, (0.4, 0.1)),
        Judged("gsm8k", "c", None, 2, (0.9, 0.6)),
        Judged("gsm8k", "d", None, 2, None),
    ]
    # Between 0.4 and 0.6 both errors are found, and one of two right ones is kept.
    t = best_threshold(judged)
    assert 0.4 <= t < 0.6
    assert best_threshold([judged[0]]) == 0.5, "without right solutions there is no F1"
