"""The whole method on a model of a few thousand weights, trained from nothing: it learns next to
nothing, but every stage does its real work, and what one stage writes the next one reads.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glore import Refiner
from glore.config import RunConfig
from glore.evaluation.inputs import Index
from glore.evaluation.refinement import candidates_of, chosen_by_orm
from glore.pipeline import run_stages
from glore.records import StepLabels, read_records
from glore.regrade import regrade
from glore.report import build_report
from glore.stages import build_stages, evaluation_options, read_inputs


def test_every_stage_leaves_its_records(quickstart: RunConfig) -> None:
    inputs = read_inputs(quickstart.run_dir)
    assert len(inputs.drafts) == 20
    assert len(inputs.samples) == 80
    assert len(inputs.train_drafts) == len(inputs.train_labels) == len(inputs.train_truth) == 120
    assert {s.model for s in inputs.scores} == {"orm", "balanced_orm", "sorm", "sft_orm"}
    labelled = [r for r in inputs.train_labels if r.labels is not None]
    drafts = {d.id: d for d in inputs.train_drafts}
    assert all(len(r.labels or ()) == len(drafts[r.solution_id].steps) for r in labelled)
    assert all(
        (r.labels or (False,))[-1] == (drafts[r.solution_id].correct == "right") for r in labelled
    )
    for name in ("base", "sft", "ei1", "student", "orm", "balanced_orm", "sorm", "refiner"):
        assert (quickstart.run_dir / "models" / name / "model.safetensors").is_file()


def test_the_run_refines_questions(quickstart: RunConfig) -> None:
    refiner = Refiner.from_run(quickstart.run_dir)
    results = refiner.refine(
        [
            "Ana has 3 pens. Tom has 2 more pens than Ana. How many pens does Tom have?",
            "Ana has 3 pens. How many?",
        ]
    )
    for result in results:
        assert result.candidates[0] == result.draft
        assert len(result.orm_scores) == len(result.sorm_scores) == len(result.draft)
        assert all(
            0 <= p <= 1 for p in (*result.orm_scores, *result.sorm_scores, *result.candidate_scores)
        )
        assert result.candidate_scores[result.chosen] == max(result.candidate_scores)
    alone = refiner(results[1].question)
    assert (alone.draft, alone.candidates, alone.chosen) == (
        results[1].draft,
        results[1].candidates,
        results[1].chosen,
    )


def test_what_users_run_is_what_the_tables_measure(quickstart: RunConfig) -> None:
    """`Refiner` on the test questions makes the drafts, refinements and choices of Fig. 4."""
    inputs = read_inputs(quickstart.run_dir)
    index = Index(inputs, evaluation_options(quickstart))
    question_of = {p.id: p.question for p in inputs.problems}
    asked = [question_of[d.problem_id] for d in index.drafts]
    for draft, result in zip(
        index.drafts, Refiner.from_run(quickstart.run_dir).refine(asked), strict=True
    ):
        candidates = candidates_of(index, draft)
        assert result.draft == draft.steps
        assert result.orm_scores == index.step_scores("orm", draft)
        assert result.candidates == tuple(c.steps for c in candidates)
        assert result.candidates[result.chosen] == chosen_by_orm(index, candidates).steps


def test_the_report_is_one_file_without_network(quickstart: RunConfig) -> None:
    text = build_report(quickstart.run_dir).read_text(encoding="utf-8")
    assert "<html" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value) of all points that TensorBoard shows for a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_training_and_every_sampling_has_live_curves(quickstart: RunConfig) -> None:
    log = quickstart.run_dir / "log"
    trained = {path.name for path in (quickstart.run_dir / "models").iterdir()} - {"student"}
    assert {"base", "sft", "ei1", "orm", "balanced_orm", "sorm", "refiner"} <= trained
    for model in trained:
        loss = curves(log / model)["train/loss"]
        assert len(loss) > 1, model
        assert all(value > 0 for _, value in loss)
    inputs = read_inputs(quickstart.run_dir)
    right = sum(s.correct == "right" for s in inputs.samples) / len(inputs.samples)
    assert curves(log / "test_samples")["sampling/right"] == [(20, pytest.approx(right))]
    refined = curves(log / "test_refinements")
    assert {tag for tag in refined if "/right/" in tag} == {
        f"sampling/right/{kind}" for kind in ("global", "local_orm", "local_sorm")
    }
    rollouts = curves(log / "rollouts")
    labels = [label for r in inputs.train_labels for label in r.labels or ()]
    [(n_done, good)] = rollouts["sampling/good_labels"]
    assert (n_done, good) == (len(inputs.train_drafts), pytest.approx(sum(labels) / len(labels)))
    assert all(rate > 0 for _, rate in rollouts["sampling/tokens_per_second"])


def test_computing_stages_again_gives_the_same_bytes(quickstart: RunConfig, tmp_path: Path) -> None:
    """From the samples on: sampling, training, labels, refinement and scores are deterministic."""
    other = quickstart.model_copy(update={"runs_dir": str(tmp_path)})
    shutil.copytree(quickstart.run_dir, other.run_dir)
    names = [s.name for s in build_stages(quickstart)]
    for name in names[names.index("samples") :]:
        shutil.rmtree(other.run_dir / "stages" / name)
    plans = run_stages(build_stages(other), other)
    assert {p.name: p.state for p in plans} == {
        n: "reused" if names.index(n) < names.index("samples") else "computed" for n in names
    }
    before, after = (
        {p.relative_to(c.run_dir): p.read_bytes() for p in c.run_dir.rglob("*.parquet")}
        for c in (quickstart, other)
    )
    assert before == after


def test_the_graders_that_made_it_change_nothing(quickstart: RunConfig) -> None:
    found = regrade(quickstart)
    assert not found.changed
    graded = {s.stage: s.n_verdicts for s in found.stages}
    assert graded["samples"] == 60 * 4
    assert graded["rollouts"] > 0


def test_another_labelling_rule_costs_no_sampling(quickstart: RunConfig, tmp_path: Path) -> None:
    other = quickstart.model_copy(
        update={
            "runs_dir": str(tmp_path),
            "labels": quickstart.labels.model_copy(update={"balance": False}),
        }
    )
    shutil.copytree(quickstart.run_dir, other.run_dir)
    plans = {
        p.name: p.state for p in run_stages(build_stages(other), other, until="labels", redo=True)
    }
    assert plans["rollouts"] == "reused"
    assert plans["labels"] == "computed"
    labels = read_records(other.run_dir / "stages" / "labels" / "part-00000.parquet", StepLabels)
    assert all(all(r.kept) for r in labels if r.kept is not None)
