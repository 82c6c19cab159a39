"""Studies `shepherd`, `self-filter` and `value`: the labels and pairs that their models learn from,
and what their tables count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import glore.stages.common
from glore.config import RunConfig
from glore.errors import RunError
from glore.how import value_mark
from glore.pipeline import run_stages
from glore.records import PrefixTrials, Solution, StepLabels, StepScores, read_records
from glore.stages import build_stages
from glore.studies import find_study, run_study
from glore.studies.judging import label_agreement
from glore.studies.measured import Measured, find, read_measured
from glore.studies.self_filter import filtered
from glore.studies.shepherd import counts_of, hard_labels, soft_labels
from glore.training.examples import LMExample, StepExample
from support.fakes import LastLineTask, solution
from support.pretend_models import (
    World,
    all_problems,
    config_of,
    pretend,
    pretended_run,
    read_stage,
)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, World]]:
    with pretended_run(
        tmp_path_factory.mktemp("runs"), *map(find_study, ("shepherd", "self-filter", "value"))
    ) as made:
        yield made


def study_records(
    config: RunConfig, study: str, stage: str, kind: type[object], part: str = "part"
) -> list[object]:
    folder = config.run_dir / "studies" / study / "stages" / stage
    return read_records(sorted(folder.glob(f"{part}-0*.parquet")), kind)  # type: ignore[type-var]


def measured(config: RunConfig, study: str, stage: str) -> list[Measured]:
    return read_measured(config.run_dir / "studies" / study, stage)


def draft(id: str, n_steps: int, correct: str) -> Solution:
    steps = tuple(f"step {i}" for i in range(n_steps))
    return Solution(id, "p", steps, "1", correct, "student", None, 5, "eos", 0, 1.0)


def trial(id: str, kept: int, verdicts: tuple[str, ...]) -> PrefixTrials:
    n = len(verdicts)
    return PrefixTrials(id, kept, ("x",) * n, verdicts, (True,) * n, n, True)


Verdicts = st.sampled_from(("right", "wrong", "unknown"))


@given(st.data(), st.integers(1, 4), st.integers(1, 5), st.sampled_from(("right", "wrong")))
def test_a_soft_label_is_the_mean_over_its_copies(
    data: st.DataObject, n_steps: int, completers: int, correct: str
) -> None:
    d = draft("d", n_steps, correct)
    drawn = completers + 2
    trials = [
        trial("d", i, tuple(data.draw(st.lists(Verdicts, min_size=drawn, max_size=drawn))))
        for i in range(1, n_steps)
    ]
    counts = counts_of([d], trials, completers)
    expected = [t.correct[:completers].count("right") for t in trials]
    assert counts["d"] == (*expected, completers if correct == "right" else 0)
    copies, labels = soft_labels([d], counts, completers)
    assert len(copies) == completers
    for step, count in enumerate(counts["d"]):
        assert sum(r.labels[step] for r in labels if r.labels) == count
    (hard,) = hard_labels([d], counts)
    assert hard.labels == tuple(c > 0 for c in counts["d"])
    assert hard.labels == labels[0].labels, "the first copy is the hard estimate"


def test_drafts_without_all_their_completions_are_left_out() -> None:
    d = draft("d", 2, "wrong")
    assert counts_of([d], [trial("d", 1, ("right",) * 3)], 4) == {}
    assert counts_of([draft("u", 1, "unknown")], [], 1) == {}
    (label,) = hard_labels([d], {})
    assert label.labels is None


def test_a_label_stays_where_its_model_agrees() -> None:
    kept = StepLabels("a", (True, True, False), (True, False, True), 2, "sorm")
    none = StepLabels("b", None, None, None, "sorm")
    found = filtered([kept, none], {"a": (0.9, 0.9, 0.7)}, 0.5)
    assert found[0].kept == (True, False, False)
    assert found[0].labels == kept.labels
    assert found[1] == none


def test_full_counts_draw_only_what_the_scan_left_out(studied: tuple[RunConfig, World]) -> None:
    config, _ = studied
    scanned = {
        (t.solution_id, t.n_steps_kept): t
        for t in read_stage(config, "rollouts", PrefixTrials)
        if isinstance(t, PrefixTrials)
    }
    full = study_records(config, "shepherd", "full_rollouts", PrefixTrials)
    assert scanned
    assert len(full) > len(scanned)
    for t in full:
        assert isinstance(t, PrefixTrials)
        assert len(t.completions) == config.labels.rollouts
        before = scanned.get((t.solution_id, t.n_steps_kept))
        if before is not None:
            assert t.completions[: len(before.completions)] == before.completions


def test_shepherd_learns_every_draft_and_soft_labels_by_copies(
    studied: tuple[RunConfig, World],
) -> None:
    config, world = studied
    hard = [e for e in world.trained["shepherd_hard"] if isinstance(e, StepExample)]
    soft = [e for e in world.trained["shepherd_soft"] if isinstance(e, StepExample)]
    part = [e for e in world.trained["shepherd_part_4"] if isinstance(e, StepExample)]
    k = config.labels.rollouts
    assert len(soft) == k * len(hard)
    assert len(part) == -(-len(hard) // 4)
    assert not Counter(part) - Counter(hard)
    found = measured(config, "shepherd", "shepherd_results")
    agreement = find(found, "shepherd-labels", f"hard, N = {k}", "labels right")
    assert agreement.value is not None
    ways = {m.column for m in found if m.table == "shepherd-rerank"}
    assert ways == {"min", "product", "mean", "final"}


def test_self_filtering_leaves_out_what_the_model_denies(
    studied: tuple[RunConfig, World],
) -> None:
    config, world = studied
    # The run's SORM has one epoch, so it is the first judge; another is trained for two.
    assert "sorm_epochs_1" not in world.trained
    assert "sorm_epochs_2" in world.trained
    every = [e for e in world.trained["sorm"] if isinstance(e, StepExample)]
    anew = [e for e in world.trained["filtered_by_sorm"] if isinstance(e, StepExample)]
    assert sum(sum(e.kept) for e in anew) < sum(sum(e.kept) for e in every)
    for e in anew:
        for step, label, kept in zip(e.steps, e.labels, e.kept, strict=True):
            looks_bad = "false" in step or step == "#### 3\n"
            assert not kept or label != looks_bad
    found = measured(config, "self-filter", "self_filter_results")
    kept_share = find(found, "self-filter", "kept by 1 epoch", "training steps judged right")
    n_kept = find(found, "self-filter", "kept by 1 epoch", "labels").value
    n_all = find(found, "self-filter", "all labels", "labels").value
    assert n_kept is not None
    assert n_all is not None
    assert kept_share.value == pytest.approx(n_kept / n_all)


def test_value_refines_from_the_place_of_the_highest_score(
    studied: tuple[RunConfig, World],
) -> None:
    config, world = studied
    pairs = [e for e in world.trained["value_refiner"] if isinstance(e, LMExample)]
    assert pairs
    made = study_records(config, "value", "value_refinements", Solution, "value_refiner")
    drafts = [d for d in read_stage(config, "test_drafts", Solution) if isinstance(d, Solution)]
    scores = {
        s.solution_id: s.p_correct
        for s in read_stage(config, "test_draft_scores", StepScores, "orm")
        if isinstance(s, StepScores)
    }
    marks = {d.id: value_mark(scores[d.id]) for d in drafts}
    assert [s.draft_id for s in made if isinstance(s, Solution)] == [
        d.id for d in drafts if marks[d.id] is not None
    ]
    asked = {r.id: r.segments for e in world.engines["value_refiner"] for r in e.requests}
    for d in drafts:
        segments = asked[f"{d.id}/value"]
        at = segments.index("[BAD]")
        assert segments[at + 1] == f" {d.steps[marks[d.id] or 0]}\n"
    found = measured(config, "value", "value_results")
    fixed = find(found, "value-fixed", "value-based", "fixed")
    wrong = {d.id for d in drafts if d.correct == "wrong"}
    n_fixed = sum(
        isinstance(s, Solution) and s.correct == "right" and s.draft_id in wrong for s in made
    )
    assert fixed.value == n_fixed / len(wrong)
    assert fixed.n == len(wrong)


def test_without_the_truth_the_labels_of_rollouts_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(
        glore.stages.common, "open_task", lambda settings, seed, *_: LastLineTask(all_problems())
    )
    config = config_of(tmp_path)
    run_stages(build_stages(config), config)
    for study, stage, table in (
        ("shepherd", "shepherd_results", "shepherd-steps"),
        ("self-filter", "self_filter_results", "self-filter-steps"),
    ):
        run_study(find_study(study), config)
        found = measured(config, study, stage)
        assert [m for m in found if m.table == table and m.value is not None]
        assert all(m.value is None for m in found if m.column == "labels right")
    with pytest.raises(RunError, match=r"knows no exact truth .* labels=FILE truth=false"):
        run_study(find_study("prm"), config)


def test_agreement_of_labels_resamples_questions_not_drafts(tmp_path: Path) -> None:
    """Drafts of one question are right or wrong together."""
    config = config_of(tmp_path)
    drafts = [
        solution("1\n2\n#### 3", "wrong", name=f"d{i}", problem_id=f"q{i // 4}") for i in range(80)
    ]
    good = [i // 4 % 2 == 0 for i in range(80)]
    labels = [
        StepLabels(d.id, (g, g, False), (True,) * 3, None, "")
        for d, g in zip(drafts, good, strict=True)
    ]
    truth = [StepLabels(d.id, (True, True, False), (True,) * 3, None, "") for d in drafts]
    found = label_agreement(config, drafts, labels, truth)
    alone = label_agreement(config, [replace(d, problem_id=d.id) for d in drafts], labels, truth)
    assert found is not None
    assert alone is not None
    assert (found.value, found.n) == (alone.value, alone.n) == (0.5, 160)
    widths = [(e.high or 0) - (e.low or 0) for e in (found, alone)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.2), "a quarter of the observations"
