"""SORM labels (method 3) for a file of solutions that somebody else sampled: the stages of a run's
labelling over that file, in a work folder beside the output.

The work folder is a run folder: rollouts are committed shard by shard, and a labelling that was
killed goes on with the same command to the same bytes. Rollout k of prefix i has the seed (seed,
solution's id, i, k), so labels depend neither on batches and shards nor on the other solutions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from glore.chat_template import step_format
from glore.config import LabelSettings, RunConfig
from glore.digests import file_digest
from glore.errors import ConfigError, DataError
from glore.formats import LabelledSolution, read_solutions
from glore.formats.labelled import Label
from glore.formats.run_solutions import CORRECT, rollout_counts, soft_labels
from glore.pipeline import Stage, StageContext, StagePlan, run_stages
from glore.pipeline.fingerprints import fingerprint_of
from glore.pipeline.integrity import recorded_files
from glore.pipeline.marks import read_done
from glore.progress import Progress, SilentProgress
from glore.prompts import PromptLayout
from glore.records import PrefixTrials, Problem, Solution, StepLabels, read_records
from glore.solution_files.answers import read_answers
from glore.solution_files.cost import Cost, measured_rate, rollout_cost
from glore.solution_files.graded import Graded, graded_solutions, grader_of
from glore.solution_files.settings import command_config, model_section, work_folder
from glore.solution_files.writing import write_plain
from glore.stages.bases import base
from glore.stages.checks import check_engine, check_prompt
from glore.stages.common import layout_of, lazy_engine
from glore.stages.diagnoses import labels_are_of_one_kind
from glore.stages.fine_tuning import base_model
from glore.stages.labelling import BALANCE, LABELS, ROLLOUTS, Policy, roll_out
from glore.where import label_drafts

__all__ = ["KINDS", "LabelJob", "label_config", "label_file", "labelling_cost"]

KINDS = ("hard", "soft")
"""What stands in `labels`: labels of the rule, or the share of right rollouts."""
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class LabelJob:
    """A file of solutions to label, and where the labels go."""

    source: Path
    output: Path
    layout: str | None = None
    """Of the source; none: told from its fields."""
    placeholder: str = "ки"
    answers: Path | None = None
    """A file with the gold answers, by question."""
    labels: str = "hard"
    """One of `KINDS`."""

    def solutions(self) -> Iterator[LabelledSolution]:
        """What the source holds. Raises DataError."""
        return read_solutions(self.source, self.layout, placeholder=self.placeholder)

    def contents(self, config: RunConfig) -> dict[str, str | None]:
        """What the drafts depend on besides settings, for the fingerprint. Raises DataError."""
        files = {"the solutions": self.source, "the answers": self.answers}
        return {
            "the layout": fingerprint_of([self.layout, self.placeholder]),
            **{name: _digest(path) for name, path in files.items() if path is not None},
        }


def label_config(
    job: LabelJob, policy: str, overrides: Sequence[str] = (), seed: int = 0
) -> RunConfig:
    """The settings of a labelling: `labels`, and of `engine`, `prompt`, `task` (which grades) what
    differs from a run's defaults. Raises ConfigError.
    """
    if job.labels not in KINDS:
        raise ConfigError(f"labels can be {' or '.join(KINDS)}, got {job.labels!r}")
    data = {
        "name": "label",
        "runs_dir": str(work_folder(job.output)),
        "seed": seed,
        "task": {"kind": "jsonl"},
        "base": model_section(policy),
    }
    soft = ["labels.full_counts=true"] if job.labels == "soft" else []
    others = ("engine", "prompt", "task", "seed", "base.dtype")
    config = command_config(data, [*soft, *overrides], "labels", LabelSettings, others)
    if job.labels == "soft" and not config.labels.full_counts:
        raise ConfigError("soft labels need labels.full_counts=true; drop that override")
    return config


def labelling_cost(job: LabelJob, config: RunConfig, *, measures: bool = True) -> str:
    """What the labelling takes, in one line. `measures`: open the policy and draw a few short
    rollouts, for the time. Raises GloreError.
    """
    graded, policy = _graded(job, config), str(config.base.reference or config.base.model)
    if config.base.is_gguf:
        return f"cost: {len(graded.drafts):,} solutions; tokens are counted once it is converted"
    cost = rollout_cost(graded.drafts, config.labels, policy)
    if not measures or not cost.n_drawn:
        return cost.said(None)
    from glore.chat_template import prompt_layout
    from glore.engines.open import open_engine
    from glore.pipeline.chosen import with_engine

    problems = {p.id: p for p in graded.problems}
    layout = prompt_layout(config.prompt, policy)
    drafts = _fitting(graded.drafts, problems, policy, layout)
    with open_engine(policy, with_engine(config).config.engine) as engine:
        return cost.said(measured_rate(engine, drafts, problems, config.labels, layout))


def label_file(
    job: LabelJob,
    config: RunConfig,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    redo: bool = False,
) -> tuple[StagePlan, ...]:
    """Draw what is missing, make the labels, and write them to `job.output`. Returns what was
    planned; `dry_run` does nothing else.

    Raises GloreError: for solutions without a gold answer, before a model is opened, and for
    settings other than those of an unfinished attempt, without `redo`.
    """
    stages = _stages(job, config)
    plans = run_stages(stages, config, dry_run=dry_run, progress=progress, redo=redo)
    if not dry_run:
        _write(job, config, progress or SilentProgress())
    return plans


def _stages(job: LabelJob, config: RunConfig) -> tuple[Stage, ...]:
    solutions = Stage("solutions", partial(_read, job), reads=("task",), contents=job.contents)
    rollouts = Stage(
        "rollouts",
        _roll_out,
        inputs=("base", "solutions"),
        reads=(*ROLLOUTS, "prompt"),
        uses=("base.model", "base.revision"),
        checks=(check_engine, check_prompt),
    )
    labels = Stage("labels", _label, inputs=("rollouts",), reads=(*LABELS, *BALANCE, "prompt"))
    return (base(config), solutions, rollouts, labels)


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(
            f"can't read {path}: {error.strerror or error}; give a file of solutions"
        ) from error


def _graded(job: LabelJob, config: RunConfig) -> Graded:
    verified = getattr(config.task, "verifier", None) is not None
    answers = read_answers(job.answers, verified) if job.answers is not None else {}
    return graded_solutions(job.solutions(), answers, config.task, config.seed, str(job.source))


def _read(job: LabelJob, ctx: StageContext) -> None:
    graded = _graded(job, ctx.config)
    ctx.write(graded.problems, Problem, "problems")
    ctx.write(graded.drafts, Solution)
    verdicts = [d.correct for d in graded.drafts]
    ctx.count(**{name: verdicts.count(name) for name in ("right", "wrong", "unknown")})
    n_other = graded.n_other_verdicts
    if n_other:
        ctx.warn(
            f"{n_other} of {len(verdicts)} solutions are graded otherwise than the file says "
            "(field correct), whose word counts; rollouts are graded here: check task.kind, and "
            "how the solutions state their answers"
        )


def _roll_out(ctx: StageContext) -> None:
    drafts = ctx.read("solutions", Solution)
    problems = {p.id: p for p in ctx.read("solutions", Problem, "problems")}
    model, settings = base_model(ctx), ctx.config.labels
    engine, layout = lazy_engine(ctx, model), layout_of(ctx, model)
    task = grader_of(ctx.config.task, ctx.seed, problems.values())
    fitting = _fitting(drafts, problems, model, layout)
    if len(fitting) < len(drafts):
        ctx.count(too_long=len(drafts) - len(fitting))
        ctx.warn(
            f"{len(drafts) - len(fitting)} of {len(drafts)} solutions leave no room in the "
            "policy's context, so nothing is drawn for them"
        )
    cost: Cost = rollout_cost(fitting, settings, model)
    rate = measured_rate(engine(), fitting, problems, settings, layout) if cost.n_drawn else None
    ctx.progress.note(cost.said(rate))
    roll_out(ctx, fitting, problems, settings, Policy(engine, layout, task))


def _fitting(
    drafts: Sequence[Solution],
    problems: Mapping[str, Problem],
    model: str | Path,
    layout: PromptLayout,
) -> list[Solution]:
    """The drafts whose prefixes leave room for a token in the policy's context."""
    from glore.model_folder import open_folder
    from glore.models import load_tokenizer
    from glore.tokenization import encode_many

    config = open_folder(model, "policy", weights=False).config
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(context, int):
        return list(drafts)
    prompts = [layout.solve(problems[d.problem_id].question, d.steps[:-1]) for d in drafts]
    encoded = encode_many(load_tokenizer(model), prompts)
    return [d for d, ids in zip(drafts, encoded, strict=True) if len(ids) < context]


def _label(ctx: StageContext) -> None:
    found, counts = label_drafts(
        ctx.read("solutions", Solution),
        ctx.read("rollouts", PrefixTrials),
        ctx.config.labels,
        seed=ctx.seed,
        steps=step_format(ctx.config.prompt),
    )
    ctx.write(found, StepLabels)
    ctx.count(**dataclasses.asdict(counts))
    ctx.warn(labels_are_of_one_kind(counts, in_run=False))


def _write(job: LabelJob, config: RunConfig, progress: Progress) -> None:
    written = write_plain(job.output, _labelled(job, config.run_dir, config.labels.full_counts))
    done = read_done(config.run_dir / "stages" / "rollouts")
    counts = done.counts if done else {}
    n = max(1, int(counts.get("drafts", 0)))
    tokens = done.tokens if done else 0
    progress.note(
        f"{written:,} solutions labelled with {int(counts.get('rollouts', 0)):,} rollouts, "
        f"{tokens:,} tokens ({tokens / n:,.1f} per solution): {job.output}"
    )


def _labelled(
    job: LabelJob, run_dir: Path, full_counts: bool
) -> Iterator[tuple[LabelledSolution, dict[str, object]]]:
    """The file's solutions with their labels, and the soft labels beside hard ones."""

    def records(stage: str, kind: type[R], part: str = "part") -> list[R]:
        return read_records(recorded_files(run_dir / "stages" / stage, part), kind)

    answers = {p.id: p.answer for p in records("solutions", Problem, "problems")}
    trials: dict[str, dict[int, PrefixTrials]] = {}
    for trial in records("rollouts", PrefixTrials):
        trials.setdefault(trial.solution_id, {})[trial.n_steps_kept] = trial
    drafts, found = records("solutions", Solution), records("labels", StepLabels)
    for given, draft, record in zip(job.solutions(), drafts, found, strict=True):
        drawn = trials.get(draft.id, {})
        soft: tuple[Label, ...] | None = soft_labels(draft, drawn) if full_counts else None
        labels = soft if job.labels == "soft" else record.labels
        solution = dataclasses.replace(
            given,
            id=draft.id,
            answer=answers[draft.problem_id],
            correct=CORRECT.get(draft.correct),
            labels=labels,
            counts=rollout_counts(draft, drawn) if drawn else None,
            kept=record.kept if record.kept and not all(record.kept) else None,
        )
        yield solution, {} if soft is None else {"soft_labels": list(soft)}
