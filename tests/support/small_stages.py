"""A small run without any machine learning, in the shape of the real one: a task, sampling in
shards, training, evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.digests import check_digests, write_digests
from glore.files import replacing
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution, StepScores

N_PROBLEMS = 7


def nothing() -> None:
    """Default tick."""


def small_stages(tick: Callable[[], None] = nothing) -> tuple[Stage, ...]:
    """Four stages; `tick` is called in the middle of every piece of work."""

    def task(context: StageContext) -> None:
        tick()
        problems = [
            Problem(f"p{i}", f"What is {i} + 1?", str(i + 1), None, "train")
            for i in range(N_PROBLEMS)
        ]
        context.write(problems, Problem)
        context.count(problems=len(problems))

    def sample(context: StageContext) -> None:
        def work(shard: Sequence[Problem]) -> list[Solution]:
            tick()
            context.count(tokens=10 * len(shard), wrong=sum(int(p.answer) % 2 for p in shard))
            return [solution(p, i) for p in shard for i in range(int(p.answer) % 3)]

        def solution(problem: Problem, i: int) -> Solution:
            seed = context.seed + i
            return Solution(
                f"{problem.id}/{i}",
                problem.id,
                (problem.question, "#### 1"),
                "1",
                "right",
                "student",
                None,
                10,
                "eos",
                seed,
                1.0,
            )

        context.sharded(context.read("task", Problem), 2, work, Solution, part="train")
        context.sharded(context.read("task", Problem)[:3], 2, work, Solution, part="train-dev")

    def train(context: StageContext) -> None:
        for number in (1, 2):

            def fit(number: int = number) -> None:
                tick()
                checkpoint = context.work_dir() / f"checkpoint-{number}"
                with replacing(checkpoint) as stream:
                    stream.write(b"half")
                digest = hashlib.sha256(
                    "".join(s.id for s in context.read("sample", Solution, "train")).encode()
                ).hexdigest()
                folder = context.new_model_dir(f"student-{number}")
                folder.mkdir(parents=True, exist_ok=True)
                tick()
                with replacing(folder / "weights") as stream:
                    stream.write(f"{digest} {context.config.student.sft.learning_rate}".encode())
                write_digests(folder)
                context.count(tokens=100)

            context.once(f"round-{number}", fit)

    def evaluate(context: StageContext) -> None:
        tick()
        check_digests(context.model_dir("student-2"))
        weights = (context.model_dir("student-2") / "weights").read_text()
        scores = [
            StepScores(s.id, weights, (0.5,)) for s in context.read("sample", Solution, "train-dev")
        ]
        context.write(scores, StepScores)
        context.count(accuracy=0.5)

    return (
        Stage("task", task, reads=("task",), estimate=lambda c: 0),
        Stage(
            "sample",
            sample,
            inputs=("task",),
            reads=("reward", "engine.dtype"),
            estimate=lambda c: 100,
        ),
        Stage(
            "train",
            train,
            inputs=("sample",),
            reads=("student.sft",),
            models=("student-1", "student-2"),
            estimate=lambda c: 200,
        ),
        Stage(
            "evaluate",
            evaluate,
            inputs=("sample", "train"),
            reads=("evaluation.threshold",),
        ),
    )


def small_config(folder: Path, **changes: object) -> RunConfig:
    """A config whose run folder is `folder/small`."""
    return RunConfig.model_validate({"name": "small", "runs_dir": str(folder), **changes})


def contents(run_dir: Path) -> dict[str, str]:
    """Relative path → digest of everything a run keeps; times left out of `done.json`."""
    out = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if not path.is_file() or name == ".lock" or name.startswith("log/"):
            continue
        data = path.read_bytes()
        if path.name == "done.json":
            mark = json.loads(data)
            data = json.dumps(
                {k: v for k, v in mark.items() if k not in ("seconds", "finished")}
            ).encode()
        out[name] = hashlib.sha256(data).hexdigest()
    return out


def everything(run_dir: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file, hidden ones too, but for the lock."""
    return {
        str(p.relative_to(run_dir)): p.read_bytes()
        for p in sorted(run_dir.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }
