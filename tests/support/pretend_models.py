"""Every model of a run as a pretence: trainers that note what they are given, engines that answer
from a seed, a task to grade them.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import glore.engines.local.scorer
import glore.engines.open
import glore.stages.common
import glore.training.finetune
import glore.training.ppo.update
from glore.config import EngineSettings, RunConfig
from glore.engines.lifetime import Closable
from glore.engines.protocol import Engine, Request
from glore.pipeline import run_stages
from glore.prompts import PromptLayout
from glore.records import Problem, read_records
from glore.stages import build_stages
from glore.step_head import BINARY, StepHead
from glore.step_layouts.parts import StepLayout
from glore.step_layouts.question import QuestionScored
from glore.studies import Study, run_study
from glore.training.examples import TrainReport
from glore.training.ppo.episodes import Episode, PolicyTokens
from glore.training.ppo.update import UpdateReport
from glore.training.training_setup import TrainingSetup
from support.fakes import FunctionEngine, LastLineTask, problem

SKILL = {
    "base": 0.3,
    "sft": 0.4,
    "ei1": 0.6,
    "ei2": 0.6,
    "ei3": 0.9,
    "student": 0.6,
    "refiner": 0.7,
}
"""Chance of a right step, by model; of any other: 0.7."""


class Oracle(LastLineTask):
    """Three true steps `k + 1 = …` lead to 10; says which steps are true."""

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        return tuple("false" not in s and s != "#### 3" for s in steps)


def all_problems() -> list[Problem]:
    worked = ("1 + 1 = 2", "2 + 8 = 10", "#### 10")
    train = [problem(f"train{n}", solution=worked if n % 3 == 0 else None) for n in range(12)]
    return [
        *train,
        *(problem(f"dev{n}", split="dev") for n in range(10)),
        *(problem(f"test{n}", split="test") for n in range(8)),
    ]


class World:
    """Stands in for every model: remembers what was trained on what."""

    def __init__(self) -> None:
        self.trained: dict[str, list[object]] = {}
        self.bases: dict[str, str] = {}
        self.heads: dict[str, StepHead] = {}
        self.updates: list[tuple[str, int, list[Episode]]] = []
        """Of PPO: name of the reference, round, episodes."""
        self.opened: Counter[str] = Counter()
        self.engines: dict[str, list[FunctionEngine]] = {}
        self.dress: Callable[[str], str] = lambda text: text
        """What a model makes of a solution's text."""

    def train(
        self,
        base: str | Path,
        examples: Sequence[object],
        settings: object,
        setup: TrainingSetup,
        head: StepHead = BINARY,
    ) -> object:
        out_dir = setup.out_dir
        self.heads[out_dir.name] = head
        self.trained[out_dir.name], self.bases[out_dir.name] = list(examples), Path(base).name
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / "model.txt").write_text(out_dir.name)
        return TrainReport(
            n_rows=len(examples), n_dropped=0, n_tokens=10, n_steps=1, final_loss=0.5, seconds=0.0
        )

    def update(
        self,
        episodes: Sequence[Episode],
        policy: Path,
        reference: Path,
        target: Path,
        settings: object,
        *,
        round_: int,
        seed: int,
        device: str,
    ) -> UpdateReport:
        self.updates.append((reference.name, round_, list(episodes)))
        (target / "model").mkdir(parents=True, exist_ok=True)
        (target / "model" / "model.txt").write_text("model")
        return UpdateReport(0.1 * round_, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1, 10)

    def save_last(self, folder: Path, target: Path, *_: object) -> None:
        assert (folder / "model.txt").is_file(), "the last round's policy is still there"
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.txt").write_text(target.name)

    def engine(
        self, model: str | Path, settings: EngineSettings, *, logs_warning: bool = True
    ) -> Engine:
        name = Path(model).name
        self.opened[name] += 1
        skill = SKILL.get(name, 0.7)

        def answer(request: Request, seed: int) -> str:
            rng = random.Random(seed)
            right = all(rng.random() < skill for _ in range(2)) and not any(
                "false" in s for s in request.segments
            )
            lines = [
                "2 + 0 = 2",
                "1 + 1 = 2" if rng.random() < 0.5 else "3 - 1 = 2",
                "2 + 8 = 10" if right else "2 + 1 = 3 false",
            ]
            return self.dress("\n".join([*lines, "#### 10" if right else "#### 3"]))

        engine = FunctionEngine(answer)
        self.engines.setdefault(name, []).append(engine)
        return engine


class Scorer(Closable):
    backend = "table"

    def __init__(
        self, model: Path, settings: EngineSettings, layout: PromptLayout | StepLayout
    ) -> None:
        assert (model / "model.txt").read_text() == model.name, "there is such a model"
        self._first = (0.6,) if isinstance(layout, QuestionScored) else ()
        self._good = 0.9 if model.name == "orm" else 0.8

    def fits(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[bool]:
        return [len(question) < 100 for question, _ in items]

    def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        assert all(self.fits(items))
        return [
            (*self._first, *(0.2 if "false" in s or s == "#### 3" else self._good for s in steps))
            for _, steps in items
        ]


def pretend(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(
        glore.stages.common, "open_task", lambda settings, seed, *_: Oracle(all_problems())
    )
    monkeypatch.setattr(glore.engines.open, "open_engine", world.engine)
    monkeypatch.setattr(glore.engines.local.scorer, "StepScorer", Scorer)
    monkeypatch.setattr(glore.training.finetune, "train_causal_lm", world.train)
    monkeypatch.setattr(glore.training.finetune, "train_step_classifier", world.train)
    monkeypatch.setattr(glore.training.finetune, "train_contrastive", world.train)
    monkeypatch.setattr("glore.models.load_tokenizer", lambda path: None)
    monkeypatch.setattr(glore.training.ppo.update, "update_policy", world.update)
    monkeypatch.setattr(glore.training.ppo.update, "save_last", world.save_last)
    letters = lambda _, ids: "".join(chr(i) for i in ids if i)  # noqa: E731
    monkeypatch.setattr(PolicyTokens, "prompt", lambda _, segments: (1, 2))
    monkeypatch.setattr(PolicyTokens, "text", letters)
    return world


def config_of(tmp_path: Path, **student: object) -> RunConfig:
    ei = {"samples": 6, "max_rounds": 3}
    return RunConfig.model_validate(
        {
            "name": "t",
            "runs_dir": str(tmp_path),
            "base": {"model": "some/base"},
            "student": {"ei": ei, **student},
            "reward": {"samples": 6, "draft_samples": 4},
            "labels": {"rollouts": 4},
            "evaluation": {"samples": 4, "bootstrap_samples": 100},
        }
    )


@contextlib.contextmanager
def pretended_run(folder: Path, *studies: Study) -> Iterator[tuple[RunConfig, World]]:
    """A run in the folder, and these studies of it. Models are a pretence inside the block."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = pretend(monkeypatch)
        config = config_of(folder)
        run_stages(build_stages(config), config)
        for study in studies:
            run_study(study, config)
        yield config, world


def read_stage(
    config: RunConfig, stage: str, kind: type[object], part: str = "part"
) -> list[object]:
    return read_records(
        sorted((config.run_dir / "stages" / stage).glob(f"{part}-0*.parquet")), kind
    )  # type: ignore[type-var]
