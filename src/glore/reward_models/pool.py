"""Reward models in a pool: `engine: {kind: ray, scoring: pool}` (docs/cluster.md).

A solution is a request to the pool whose segments are the question and the steps, and its scores
come back as the one completion's numbers. So the pool's rules hold for scores too: solutions of one
question go to one worker, and those of a lost worker are scored elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glore.adapter_folder import adapter_base, is_adapter
from glore.config import EngineSettings, RayEngineSettings, TorchEngineSettings
from glore.engines.lifetime import Closable
from glore.engines.protocol import (
    Completion,
    Engine,
    FollowUp,
    Request,
    Result,
    SamplingParams,
)
from glore.engines.ray.engine import RayEngine
from glore.engines.ray.worker import ModelFiles, unpacked
from glore.model_folder import open_folder
from glore.prompts import PLAIN, PromptLayout
from glore.reward_models.open import layout_in_run, open_model_of_run

if TYPE_CHECKING:
    from glore.engines.local.scorer import StepScorer

__all__ = ["PoolScorer", "ScoringEngine", "open_here_or_in_pool"]

Item = tuple[str, tuple[str, ...]]
_PARAMS = SamplingParams(temperature=0.0, max_new_tokens=1)
"""Of every request: nothing is drawn."""


def open_here_or_in_pool(
    folder: str | Path,
    engine: EngineSettings,
    prompt: PromptLayout = PLAIN,
    *,
    with_question: bool = False,
    logs_warning: bool = True,
    neutral: str | None = None,
) -> StepScorer | PoolScorer:
    """As `open_model_of_run`; with `engine.scoring: pool` in a pool. Raises EngineError,
    ModelError, ConfigError.
    """
    if isinstance(engine, RayEngineSettings) and engine.scoring == "pool":
        return PoolScorer(folder, engine, prompt, with_question, neutral)
    return open_model_of_run(
        folder,
        engine,
        prompt,
        with_question=with_question,
        logs_warning=logs_warning,
        neutral=neutral,
    )


class PoolScorer(Closable):
    """Scores solutions with a reward model in every worker of a pool.

    Raises EngineError without Ray or room in the cluster, ModelError when no worker can load the
    model.
    """

    def __init__(
        self,
        model_path: str | Path,
        settings: RayEngineSettings,
        prompt: PromptLayout,
        with_question: bool = False,
        neutral: str | None = None,
    ) -> None:
        """`prompt`, `with_question` and `neutral`: as for `open_model_of_run`."""
        self.name, self._prompt = str(model_path), prompt
        inner = TorchEngineSettings(
            device=settings.device, dtype=settings.dtype, scoring_tokens=settings.scoring_tokens
        )
        self._pool = RayEngine.over(
            model_path,
            settings.model_copy(update={"inner": None}),
            lambda path, files: _OpenScorer(path, inner, prompt, with_question, neutral, files),
        )

    @property
    def backend(self) -> str:
        """The pool, and what its reward models use."""
        self.check_open()
        return self._pool.backend

    def score(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """As `StepScorer.score`."""
        self.check_open()
        scores: list[tuple[float, ...]] = [()] * len(items)
        requests = (
            Request(str(i), (question, *steps), (0,), _PARAMS)
            for i, (question, steps) in enumerate(items)
            if steps
        )
        for result in self._pool.run(requests):
            scores[int(result.request.id)] = result.completions[0].logprobs or ()
        self.warning = self._pool.warning
        return scores

    def fits(self, items: Sequence[Item]) -> list[bool]:
        """As `StepScorer.fits`, without a worker."""
        from glore.engines.local.scorer import fitting
        from glore.models import load_tokenizer

        self.check_open()
        folder = Path(self.name)
        whole = adapter_base(folder) if is_adapter(folder) else folder
        config = open_folder(whole, "reward model", weights=False).config
        context = config.get("max_position_embeddings") or config.get("n_positions")
        if not isinstance(context, int):
            return [True] * len(items)
        layout = layout_in_run(self.name, self._prompt)
        return fitting(items, layout, load_tokenizer(self.name), context)

    def _free(self) -> None:
        self._pool.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _OpenScorer:
    """Opens the reward model in the worker, as `OpenModel` an engine."""

    path: str
    settings: EngineSettings
    prompt: PromptLayout
    with_question: bool
    neutral: str | None
    files: ModelFiles | None

    def __call__(self) -> Engine:
        with unpacked(self.path, self.files) as place:
            scorer = open_model_of_run(
                place,
                self.settings,
                self.prompt,
                with_question=self.with_question,
                neutral=self.neutral,
            )
        return ScoringEngine(scorer)


class ScoringEngine(Closable):
    """An `Engine` that scores: a request's segments are a question and steps, and its completion
    has their scores in the place of log-probabilities.
    """

    def __init__(self, scorer: StepScorer) -> None:
        self._scorer = scorer
        self.name, self.warning = scorer.name, scorer.warning

    @property
    def backend(self) -> str:
        """What reads the reward model."""
        return self._scorer.backend

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Score every request, all that have arrived together."""
        return self._guarded(self._results(requests, follow_up))

    def _results(
        self, requests: Iterable[Request], follow_up: FollowUp | None
    ) -> Generator[Result]:
        waiting = list(requests)
        while waiting:
            items = [(r.segments[0], r.segments[1:]) for r in waiting]
            arrived: list[Request] = []
            for request, scores in zip(waiting, self._scorer.score(items), strict=True):
                result = Result(request, (Completion("", 0, "eos", request.seeds[0], scores),))
                if follow_up is not None:
                    arrived.extend(follow_up(result))
                yield result
            waiting = arrived

    def _free(self) -> None:
        self._scorer.close()
