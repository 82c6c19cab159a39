"""The test questions of a run as a log of inspect_ai (`.eval`), for its viewer.

The file is a zip of JSON, as inspect_ai 0.3.285 writes it: `header.json`, `summaries.json`,
`samples/ID_epoch_1.json` and `_journal/start.json`. A question is a sample. Its scores are the
draft's, the refined answer's and that of the best of K samples. Its events hold every text on the
way: the draft, the refinements and the samples, with the step scores of each reward model.
"""

from __future__ import annotations

import datetime
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.errors import DataError, RunError, shown
from glore.evaluation.inputs import REFINERS, REWARD_MODELS, EvaluationInputs, Index
from glore.evaluation.refinement import candidates_of, chosen_by_orm
from glore.files import replacing
from glore.pipeline.fingerprints import fingerprint_of
from glore.pipeline.marks import DoneMark, read_done
from glore.pipeline.recorded import made_with
from glore.records import Problem, Solution, StepLabels
from glore.stages import evaluation_options, read_inputs

__all__ = ["SUFFIX", "write_inspect_log"]

SUFFIX = ".eval"
LOG_VERSION = 2
MARKS = {"right": "C", "wrong": "I", "unknown": "N"}
"""Verdict → the value that inspect_ai counts: C as 1, I and N (no answer) as 0."""
STOPS = {"eos": "stop", "stop": "stop", "length": "max_tokens"}
DRAFT, REFINED = "draft", "refined"

Json = dict[str, object]


def write_inspect_log(run_dir: Path, output: Path) -> int:
    """Write the log of a finished run, whole or not at all, and return its number of samples.

    Raises RunError where the run isn't finished or the disk refuses, DataError for a file name that
    the viewer doesn't list.
    """
    if output.suffix != SUFFIX:
        raise DataError(
            f"inspect_ai lists files named *{SUFFIX}, got {shown(output.name)}; name the file so"
        )
    mark = read_done(run_dir / "stages" / "evaluate")
    if mark is None:
        raise RunError(
            f"run {run_dir} is not finished (its stage evaluate is not done); finish it with glore "
            "run"
        )
    made = made_with(run_dir, ["evaluate"])
    inputs = read_inputs(run_dir, made)
    index = Index(inputs, evaluation_options(made))
    log = _Log(inputs, index, mark, made.task.kind, made.seed)
    with replacing(output) as stream:
        stream.write(log.packed())
    return len(index.drafts)


class _Log:
    """The JSON parts of one log."""

    def __init__(
        self, inputs: EvaluationInputs, index: Index, mark: DoneMark, task: str, seed: int
    ) -> None:
        self._index, self._time = index, _moment(mark)
        self._problems = {p.id: p for p in inputs.problems}
        self._truth = {r.solution_id: r for r in inputs.draft_truth}
        self._labels = {r.solution_id: r for r in inputs.draft_labels}
        self._model = f"glore/{inputs.name}"
        self._best_of = f"best_of_{index.options.best_of}"
        drafts = index.drafts
        self._spec: Json = {
            "eval_id": fingerprint_of(["eval", mark.fingerprint]),
            "run_id": fingerprint_of(["run", mark.fingerprint]),
            "task_id": fingerprint_of(["task", mark.fingerprint]),
            "created": self._time,
            "task": f"glore_{task}",
            "dataset": {
                "name": task,
                "samples": len(drafts),
                "sample_ids": [d.problem_id for d in drafts],
                "shuffled": False,
            },
            "model": self._model,
            "config": {"epochs": 1},
            "packages": {"glore": mark.versions.get("glore", "unknown")},
            "metadata": {
                "seed": seed,
                "threshold": index.options.threshold,
                "aggregate": index.options.aggregate,
            },
        }

    def packed(self) -> bytes:
        """The whole file. Its bytes depend on the records alone."""
        samples = [self._sample(draft) for draft in self._index.drafts]
        start = {"version": LOG_VERSION, "eval": self._spec, "plan": self._plan()}
        header = {
            **start,
            "status": "success",
            "results": self._results(samples),
            "stats": {"started_at": self._time, "completed_at": self._time},
        }
        parts: dict[str, object] = {"_journal/start.json": start}
        parts |= {f"samples/{s['id']}_epoch_1.json": s for s in samples}
        parts |= {"summaries.json": [_summary(s) for s in samples], "header.json": header}
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in parts.items():
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, json.dumps(part, allow_nan=False))
        return memory.getvalue()

    def _plan(self) -> Json:
        steps = [DRAFT, "reward models", "refinement", "reranking"]
        return {"name": "glore", "steps": [{"solver": s, "params": {}} for s in steps]}

    def _sample(self, draft: Solution) -> Json:
        problem = self._problems[draft.problem_id]
        candidates = candidates_of(self._index, draft)
        chosen = chosen_by_orm(self._index, candidates)
        samples = self._index.samples_of.get(draft.problem_id, [])
        first = samples[: self._index.options.best_of]
        scores = {DRAFT: _score(draft), REFINED: _score(chosen)}
        if first:
            scores[self._best_of] = _score(chosen_by_orm(self._index, first))
        answer = {"role": "assistant", "content": _text(chosen), "source": "generate"}
        refined = (self._index.refinement_of.get((draft.id, kind)) for kind in REFINERS)
        told = [
            self._event(draft, DRAFT, problem, draft is chosen),
            *(self._event(s, s.source, problem, s is chosen) for s in refined if s is not None),
            *(self._event(s, f"sample {i}", problem, False) for i, s in enumerate(samples, 1)),
        ]
        orm = self._index.step_scores("orm", draft)
        return {
            "id": problem.id,
            "epoch": 1,
            "uuid": fingerprint_of([self._spec["eval_id"], problem.id]),
            "input": problem.question,
            "target": problem.answer,
            "messages": [{"role": "user", "content": problem.question}, answer],
            "output": {
                "model": self._model,
                "choices": [{"message": answer, "stop_reason": STOPS.get(chosen.stop, "unknown")}],
            },
            "scores": scores,
            "metadata": {
                "chosen": DRAFT if chosen is draft else chosen.source,
                "orm_needs_work": None if orm is None else self._index.options.needs_work(orm),
            },
            "events": [
                {**event, "uuid": fingerprint_of([problem.id, i])} for i, event in enumerate(told)
            ],
        }

    def _event(self, solution: Solution, source: str, problem: Problem, is_chosen: bool) -> Json:
        scored = {
            model: scores
            for model in REWARD_MODELS
            if (scores := self._index.step_scores(model, solution)) is not None
        }
        columns: dict[str, Sequence[object] | None] = {
            **scored,
            "label": _of(self._labels.get(solution.id)),
            "truth": _of(self._truth.get(solution.id)),
        }
        steps = [
            {
                "step": text,
                **{k: v[i] for k, v in columns.items() if v is not None and i < len(v)},
            }
            for i, text in enumerate(solution.steps)
        ]
        data: Json = {
            "verdict": solution.correct,
            "answer": solution.answer,
            "gold": problem.answer,
            "chosen": is_chosen,
            "tokens": solution.n_tokens,
            "steps": steps,
        }
        return {
            "event": "info",
            "source": source,
            "timestamp": self._time,
            "working_start": 0.0,
            "data": data,
        }

    def _results(self, samples: Sequence[Json]) -> Json:
        names = dict.fromkeys(name for s in samples for name in _scores_of(s))
        return {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [_metrics(name, samples) for name in names],
        }


def _metrics(name: str, samples: Sequence[Json]) -> Json:
    """Accuracy and its standard error. What could not be graded counts as not right."""
    found = [scores[name] for s in samples if name in (scores := _scores_of(s))]
    n, share = len(found), sum(f["value"] == "C" for f in found) / len(found)
    stderr = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else 0.0
    return {
        "name": name,
        "scorer": name,
        "scored_samples": n,
        "unscored_samples": len(samples) - n,
        "metrics": {
            "accuracy": {"name": "accuracy", "value": share},
            "stderr": {"name": "stderr", "value": stderr},
        },
    }


def _scores_of(sample: Json) -> Mapping[str, Json]:
    scores = sample["scores"]
    assert isinstance(scores, dict)
    return scores


def _score(solution: Solution) -> Json:
    unknown = {"explanation": "the answer could not be graded"}
    return {
        "value": MARKS[solution.correct],
        "answer": solution.answer,
        **(unknown if solution.correct == "unknown" else {}),
    }


def _summary(sample: Json) -> Json:
    """The sample without its texts."""
    kept = ("id", "epoch", "uuid", "input", "target", "metadata", "scores")
    return {**{k: sample[k] for k in kept}, "completed": True, "message_count": 2}


def _of(record: StepLabels | None) -> Sequence[object] | None:
    return None if record is None else record.labels


def _text(solution: Solution) -> str:
    return "\n".join(solution.steps)


def _moment(mark: DoneMark) -> str:
    """When the run's tables were made, with a time zone."""
    try:
        moment = datetime.datetime.fromisoformat(mark.finished)
    except ValueError:
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).isoformat()
