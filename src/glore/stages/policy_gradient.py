"""PPO within a stage: rounds of drawing, rewarding and updating, each committed, so that a killed
stage goes on where it was and writes the same bytes.

The engine opens the weights of every round anew. What is drawn and what it earns is the caller's.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glore.config import HttpEngineSettings, RunConfig
from glore.engines.protocol import Completion, Engine, Request, SamplingParams
from glore.errors import ConfigError, RunError
from glore.pipeline import StageContext
from glore.records import Solution
from glore.seeds import stable_seed
from glore.stages.common import lazy_engine, model_name, shard_size
from glore.stages.workload import workload
from glore.statistics import mean
from glore.training.examples import TrainReport
from glore.training.ppo.episodes import Episode
from glore.training.ppo.settings import PpoSettings

if TYPE_CHECKING:
    from glore.training.ppo.update import UpdateReport

__all__ = [
    "RoundStats",
    "check_policy_engine",
    "draw",
    "episode_of",
    "in_turns",
    "ppo_tokens",
    "read_episodes",
    "read_rounds",
    "train_ppo",
]

T = TypeVar("T")
Play = Callable[[Engine, int, Sequence[T]], list[Episode]]
"""Policy, round (0-based) and some of its items → episodes. The result depends on nothing else."""
ROUNDS = "rounds"


@dataclasses.dataclass(frozen=True, slots=True)
class RoundStats:
    """What one round drew, and what its update measured. Shares and means are over the episodes of
    the last kind of the round: refinements, where drafts are drawn too.
    """

    round: int
    """1-based."""
    n: int
    """Episodes."""
    reward: float
    """Mean, before the penalty."""
    right: float
    """Share with a right answer."""
    copied: float
    """Share of refinements that repeat their draft."""
    fixed: float
    """Share of the refinements of wrong drafts that are right."""
    broken: float
    """Share of the refinements of right drafts that are not right."""
    draft_right: float
    """Share of refinements whose draft is right."""
    n_steps: float
    """Steps of a solution, mean."""
    n_tokens: float
    """Drawn tokens of an episode, mean."""
    kl: float
    entropy: float
    explained: float
    clipped: float
    gradient: float
    """The last five: as in `UpdateReport`."""


def check_policy_engine(config: RunConfig) -> None:
    """The engine can draw from weights that change. Raises ConfigError."""
    if isinstance(config.engine.sampler, HttpEngineSettings):
        raise ConfigError(
            "engine.kind http: PPO changes the weights in every round, and a server goes on with "
            "those that it loaded; use engine.kind torch, vllm or ray"
        )


def ppo_tokens(config: RunConfig, settings: PpoSettings, parts: float = 3) -> int:
    """Tokens drawn and learned from, roughly. `parts`: solutions that an episode holds besides the
    question, what is drawn included (a refinement: 2).
    """
    sizes = workload(config)
    n_episodes = settings.rounds * settings.prompts * settings.samples
    row = sizes.question_tokens + parts * sizes.solution_tokens
    return round(n_episodes * (sizes.solution_tokens + row * (settings.epochs + 2)))


def in_turns(
    ctx: StageContext, items: Sequence[T], id_of: Callable[[T], str], n: int
) -> Callable[[int], list[T]]:
    """Round (0-based) → at most n items, other ones in each round until all had their turn: the
    items in one seeded order after the other.
    """

    @functools.cache
    def order(turn: int) -> list[T]:
        key = functools.partial(stable_seed, ctx.seed, "ppo items", ctx.name, turn)
        return sorted(items, key=lambda item: (key(id_of(item)), id_of(item)))

    def of(r: int) -> list[T]:
        if not items:
            return []
        places = (divmod(place, len(items)) for place in range(r * n, (r + 1) * n))
        # A round that ends one order and begins the next could have an item twice.
        return list({id_of(i): i for i in (order(turn)[at] for turn, at in places)}.values())

    return of


def draw(
    ctx: StageContext,
    engine: Engine,
    prompts: Mapping[str, Sequence[str]],
    settings: PpoSettings,
    r: int,
    *,
    samples: int | None = None,
) -> dict[str, tuple[Completion, ...]]:
    """Completions of every prompt (id → segments) in round r, with their tokens. `samples`: of each
    prompt; none: as set.
    """
    params = SamplingParams(
        temperature=settings.temperature,
        max_new_tokens=ctx.config.student.max_new_tokens,
        logprobs=True,
    )
    n = settings.samples if samples is None else samples
    requests = [
        Request(
            id=name,
            segments=tuple(segments),
            seeds=tuple(stable_seed(ctx.seed, ctx.name, r, name, k) for k in range(n)),
            params=params,
        )
        for name, segments in prompts.items()
    ]
    found = {result.request.id: result.completions for result in engine.run(requests)}
    ctx.count(tokens=sum(c.n_tokens for cs in found.values() for c in cs))
    return {name: found[name] for name in prompts}


def episode_of(
    kind: str,
    solution: Solution,
    completion: Completion,
    prompt_ids: tuple[int, ...],
    rewards: tuple[float, ...],
) -> Episode:
    """What was drawn and graded as an episode. `kind` and `rewards`: as there."""
    return Episode(
        id=solution.id,
        problem_id=solution.problem_id,
        kind=kind,
        prompt_ids=prompt_ids,
        response_ids=completion.tokens or (),
        rewards=rewards,
        correct=solution.correct,
        draft_correct="",
        copied=False,
        n_steps=len(solution.steps),
    )


def train_ppo(
    ctx: StageContext,
    model: str,
    start: str | Path,
    settings: PpoSettings,
    items: Callable[[int], Sequence[T]],
    play: Play[T],
    *,
    judges: Iterable[str] = (),
) -> list[RoundStats]:
    """Improve `start` into `models/MODEL`. `items`: round (0-based) → what is played then;
    `judges`: reward models that `play` opens, closed before every update.

    Writes the episodes of round r as part `round00r` and the statistics as part `rounds`. Raises
    RunError for a round without episodes.
    """
    work, folder = ctx.work_dir(), Path(start)
    policy = folder
    for r in range(settings.rounds):
        engine = lazy_engine(ctx, folder)

        def shard(
            chosen: Sequence[T], r: int = r, engine: Callable[[], Engine] = engine
        ) -> list[Episode]:
            return play(engine(), r, chosen)

        part = _part(r)
        episodes = ctx.sharded(
            items(r), shard_size(settings.samples), shard, Episode, part, unit="prompts"
        )
        for name in (model_name(folder), *judges):
            ctx.release(name)
        target = work / part

        def update(
            r: int = r, policy: Path = policy, episodes: Sequence[Episode] = tuple(episodes)
        ) -> None:
            _update(ctx, episodes, policy, Path(start), work / _part(r), settings, r)

        ctx.once(f"update{r:03}", update)
        if policy != Path(start):
            shutil.rmtree(policy, ignore_errors=True)
        policy, folder = target, target / "model"
    stats = [s for r in range(settings.rounds) for s in ctx.read(ctx.name, RoundStats, _stats(r))]
    ctx.once("save", lambda: _save(ctx, model, folder, start, settings, stats))
    ctx.write(stats, RoundStats, ROUNDS)
    return stats


def read_rounds(ctx: StageContext, stage: str) -> list[RoundStats]:
    """The statistics of the rounds that `train_ppo` wrote in that stage."""
    return ctx.read(stage, RoundStats, ROUNDS)


def read_episodes(ctx: StageContext, stage: str, r: int) -> list[Episode]:
    """The episodes of round r (0-based) of that stage; of its last kind: refinements, where drafts
    are drawn too.
    """
    return _last_kind(ctx.read(stage, Episode, _part(r)))


def _stats(r: int) -> str:
    return f"stats{r:03}"


def _part(r: int) -> str:
    return f"round{r:03}"


def _last_kind(episodes: Sequence[Episode]) -> list[Episode]:
    return [e for e in episodes if e.kind == episodes[-1].kind]


def _update(
    ctx: StageContext,
    episodes: Sequence[Episode],
    policy: Path,
    reference: Path,
    target: Path,
    settings: PpoSettings,
    r: int,
) -> None:
    from glore.training.ppo import update

    if not episodes:
        raise RunError(
            f"round {r + 1} of PPO drew nothing that could be graded, so there is nothing to learn "
            "from; see whether the model answers at all (student.max_new_tokens)"
        )
    report = update.update_policy(
        episodes,
        policy,
        reference,
        target,
        settings,
        round_=r,
        seed=ctx.seed,
        device=ctx.config.engine.device,
    )
    found = _statistics(episodes, r, report)
    ctx.write([found], RoundStats, _stats(r))
    ctx.count(tokens=report.n_tokens, steps=report.n_steps, episodes=len(episodes))
    ctx.progress.note(
        f"{ctx.name} round {r + 1}: reward {found.reward:.3f}, right {found.right:.1%}, copied "
        f"{found.copied:.1%}, KL {found.kl:.3f}, entropy {found.entropy:.3f}"
    )


def _statistics(episodes: Sequence[Episode], r: int, report: UpdateReport) -> RoundStats:
    own = _last_kind(episodes)
    wrong = [e for e in own if e.draft_correct == "wrong"]
    right = [e for e in own if e.draft_correct == "right"]
    measured = {
        name: float(getattr(report, name))
        for name in ("kl", "entropy", "explained", "clipped", "gradient")
    }
    return RoundStats(
        round=r + 1,
        n=len(own),
        reward=mean([sum(e.rewards) for e in own]),
        right=mean([e.correct == "right" for e in own]),
        copied=mean([e.copied for e in own]),
        fixed=mean([e.correct == "right" for e in wrong]),
        broken=mean([e.correct != "right" for e in right]),
        draft_right=mean([e.draft_correct == "right" for e in own]),
        n_steps=mean([e.n_steps for e in own]),
        n_tokens=mean([len(e.response_ids) for e in own]),
        **measured,
    )


def _save(
    ctx: StageContext,
    model: str,
    folder: Path,
    start: str | Path,
    settings: PpoSettings,
    stats: Sequence[RoundStats],
) -> None:
    from glore.training.ppo import update

    report = TrainReport(
        n_rows=int(sum(s.n for s in stats)),
        n_dropped=0,
        n_tokens=int(ctx.counts.get("tokens", 0)),
        n_steps=int(ctx.counts.get("steps", 0)),
        final_loss=-stats[-1].reward,
        seconds=0.0,
    )
    update.save_last(
        folder,
        ctx.new_model_dir(model),
        f"Causal language model, improved from {Path(start).name} by PPO (arXiv 1707.06347). Its "
        "loss below is the last round's mean reward, negative.",
        settings,
        report,
        ctx.seed,
        ctx.config.base.dtype,
    )
