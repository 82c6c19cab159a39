"""A run as inspect_ai's log: its structure, and inspect_ai's own reader where it is installed."""

import importlib.util
import json
import subprocess
import sys
import zipfile

import pytest

from glore.errors import DataError, RunError
from glore.evaluation import EvaluationOptions, evaluate
from glore.report.inspect_log import write_inspect_log
from support.command_line import environment
from support.fake_records import fake_inputs, finish_stage, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Records with hostile texts, their run folder, and the log of it."""
    folder = tmp_path_factory.mktemp("inspect")
    inputs = fake_inputs(30, seed=5, hostile=True)
    run_dir = write_run(folder, inputs)
    finish_stage(run_dir, "evaluate", seconds=1.0, tokens=0, counts={})
    assert write_inspect_log(run_dir, folder / "log.eval") == 30
    return inputs, run_dir, folder / "log.eval"


def parts(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def test_every_question_is_a_sample_with_all_its_texts(run):
    inputs, _, path = run
    found = parts(path)
    wanted = {f"samples/{p.id}_epoch_1.json" for p in inputs.problems}
    assert found.keys() - wanted == {"_journal/start.json", "summaries.json", "header.json"}
    for problem, draft in zip(inputs.problems, inputs.drafts, strict=True):
        sample = found[f"samples/{problem.id}_epoch_1.json"]
        assert (sample["input"], sample["target"]) == (problem.question, problem.answer)
        first = sample["events"][0]
        assert [s["step"] for s in first["data"]["steps"]] == list(draft.steps)
        scored = next(s for s in inputs.scores if (s.model, s.solution_id) == ("sorm", draft.id))
        assert [s["sorm"] for s in first["data"]["steps"]] == list(scored.p_correct)
        refined = {s.source: s for s in inputs.refinements if s.draft_id == draft.id}
        told = {e["source"]: e["data"] for e in sample["events"]}
        assert told.keys() == {"draft", *refined, *(f"sample {k}" for k in range(1, 9))}
        assert sum(data["chosen"] for data in told.values()) == 1
        chosen = next(data for data in told.values() if data["chosen"])
        assert sample["messages"][1]["content"] == "\n".join(s["step"] for s in chosen["steps"])
        verdicts = {"right": "C", "wrong": "I", "unknown": "N"}
        assert sample["scores"]["draft"]["value"] == verdicts[draft.correct]
        assert sample["scores"]["refined"]["value"] == verdicts[chosen["verdict"]]
    assert [s["id"] for s in found["summaries.json"]] == [p.id for p in inputs.problems]


def test_its_accuracies_are_those_of_the_report(run):
    inputs, _, path = run
    report = evaluate(inputs, EvaluationOptions(bootstrap_samples=100))
    ways = {row.way: row.accuracy for row in report.figure4}
    scores = {s["name"]: s for s in parts(path)["header.json"]["results"]["scores"]}
    for name, way in (("draft", "greedy"), ("refined", "reranked"), ("best_of_3", "best_of")):
        assert scores[name]["metrics"]["accuracy"]["value"] == ways[way].value
        assert scores[name]["scored_samples"] == ways[way].n


def test_the_same_records_give_the_same_bytes(run, tmp_path):
    _, run_dir, path = run
    write_inspect_log(run_dir, tmp_path / "again.eval")
    assert (tmp_path / "again.eval").read_bytes() == path.read_bytes()


def test_the_command_and_its_refusals(run, tmp_path):
    _, run_dir, path = run

    def export(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "glore", "export", *arguments, "--format", "inspect"],
            env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = export(str(run_dir), "--output", str(tmp_path / "a.eval"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.eval").read_bytes() == path.read_bytes()
    with pytest.raises(DataError, match=r"lists files named \*\.eval"):
        write_inspect_log(run_dir, tmp_path / "a.json")
    unfinished = write_run(tmp_path, fake_inputs(3))
    with pytest.raises(RunError, match="not finished"):
        write_inspect_log(unfinished, tmp_path / "b.eval")
    assert not (tmp_path / "b.eval").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None,
    reason="inspect_ai is not installed (pip install inspect_ai==0.3.285)",
)
@pytest.mark.filterwarnings("ignore")
def test_inspect_ai_reads_it_and_writes_the_same(run, tmp_path):
    from inspect_ai.log import (
        read_eval_log,
        read_eval_log_sample,
        read_eval_log_sample_summaries,
        write_eval_log,
    )

    inputs, _, path = run
    log = read_eval_log(str(path))
    assert log.status == "success"
    assert {s.id for s in log.samples} == {p.id for p in inputs.problems}
    assert len(read_eval_log_sample_summaries(str(path))) == 30
    assert read_eval_log_sample(str(path), log.samples[3].id).events == log.samples[3].events
    write_eval_log(log, str(tmp_path / "again.eval"))
    # Its writer moves long texts to attachments.
    again = read_eval_log(str(tmp_path / "again.eval"), resolve_attachments="full")
    ours, theirs = (found.model_dump(mode="json") for found in (log, again))
    for sample in (*ours["samples"], *theirs["samples"]):
        del sample["attachments"]
    assert theirs == ours
