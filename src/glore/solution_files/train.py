"""A reward model from labelled solutions, without a run: the training of a run's stages, over a
file.

Rows, their order and the training's seed are those of a run with the same labels and settings, so
a file that a run exported gives that run's reward model. Unfinished work is beside the output: a
training that was killed goes on from its last checkpoint (`save_steps`).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from glore.chat_template import prompt_layout
from glore.config import PromptSettings, RunConfig, TrainSettings
from glore.errors import ConfigError, DataError, RunError
from glore.files import move_folder
from glore.formats import LabelledSolution
from glore.model_cards import with_metrics
from glore.pipeline.folder import locked, write_text
from glore.progress import Progress
from glore.prompts import PromptLayout
from glore.reward_models.layouts import NOTE, note_of, step_layout
from glore.seeds import stable_seed
from glore.solution_files.answers import question_key
from glore.solution_files.examples import (
    CONTRASTIVE,
    OF_ANSWERS,
    LabelRule,
    TrainingSolution,
    step_examples,
    training_pairs,
    training_solutions,
)
from glore.solution_files.judging import Agreement, Judged, Ranked
from glore.solution_files.settings import command_config, model_section, work_folder
from glore.stages.checks import check_base, check_prompt, check_training
from glore.stages.reward_training import check_label_tokens
from glore.statistics import Estimate
from glore.step_head import BINARY, NEUTRAL_CLASS
from glore.step_layouts.apart import GloreLayout
from glore.training.examples import StepExample, TrainReport
from glore.training.pairs import PAIR, PairExample
from glore.training.training_setup import TrainingSetup

__all__ = ["Trained", "train_config", "train_file"]

ABOUT = {
    "orm": "of the final answer, at every step",
    "sorm": "of steps, from the file",
    "prm": "of steps, from the file",
    CONTRASTIVE: "of the final answer, in pairs of a right and a wrong solution of a question",
}


SOFT_IS_GOOD = 0.5
"""Where a model is judged, a step whose soft label is above it counts as good."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    report: TrainReport
    left_out: Counter[str]
    good_steps: int
    bad_steps: int
    soft_steps: int
    """Steps whose label is between bad and good."""
    neutral_steps: int
    """Steps of the third class, where there is one."""
    n_pairs: int
    """Of a contrastive reward model, which has no labels of steps."""
    held_out: Judged | Ranked | None
    """On questions that were held out: accuracy on steps, or right solutions above wrong ones; none
    without any.
    """


def train_config(
    rule: LabelRule, base: str, output: Path, overrides: Sequence[str] = (), seed: int = 0
) -> RunConfig:
    """The settings of a training: those of `TrainSettings` without a section, and of `engine`,
    `prompt`, `base` and `launch` what differs from a run's. Raises ConfigError.
    """
    data = {
        "name": "train",
        "runs_dir": str(work_folder(output)),
        "seed": seed,
        "task": {"kind": "jsonl"},
        "base": model_section(base),
    }
    others = ("engine", "prompt", "base.dtype", "base.revision", "launch", "seed")
    config = command_config(data, overrides, _section(rule), TrainSettings, others)
    if config.base.is_gguf:
        raise ConfigError(
            f"--base {base} is a GGUF file, which a run converts first; give a model's folder or "
            "a Hub name"
        )
    return config


def train_file(
    solutions: Iterable[LabelledSolution],
    rule: LabelRule,
    config: RunConfig,
    output: Path,
    progress: Progress,
    *,
    where: str,
    held_out: float = 0.0,
) -> Trained:
    """Train a reward model and save it as `output`, for AutoModelForTokenClassification, or for
    AutoModelForCausalLM with label tokens.

    `held_out`: share of the questions that are not trained on but judged; `where` names the
    solutions in errors. Raises GloreError, DataError for labels of one kind alone.
    """
    if output.exists():
        raise RunError(f"{output} is there already; choose another --output, or remove it")
    if rule.layout != "glore" and config.prompt != PromptSettings():
        raise ConfigError(
            f"--layout {rule.layout} says itself how questions and steps are written; leave out "
            "prompt.*"
        )
    for check in (check_base, check_prompt, check_training(_section(rule))):
        check(config)
    if rule.layout == "glore":
        check_label_tokens(rule.head, config)
    found, left_out = training_solutions(solutions, rule, where)
    learned, judged = _split(found, held_out, config.seed)
    pairs = training_pairs(learned, config.seed, where) if rule.name == CONTRASTIVE else []
    counts = (0, 0, 0, 0) if pairs else _classes(learned, rule, where)
    if pairs:
        alone = len(learned) - PAIR * len(pairs)
        left_out.update({"without another of the other kind to pair with": alone} if alone else {})
    work = work_folder(output)
    with locked(work):
        made = work / output.name
        report = _train(learned, pairs, rule, config, made, progress, where)
        accuracy = _judge(made, judged, rule, config, progress) if judged else None
        _complete_card(made, accuracy, is_soft=counts[2] > 0)
        move_folder(made, output)
    shutil.rmtree(work, ignore_errors=True)
    return Trained(report, left_out, *counts, len(pairs), accuracy)


def _section(rule: LabelRule) -> str:
    return "reward.orm" if rule.name in OF_ANSWERS else "reward.sorm"


def _settings(rule: LabelRule, config: RunConfig) -> TrainSettings:
    return config.reward.orm if rule.name in OF_ANSWERS else config.reward.sorm


def _split(
    found: Sequence[TrainingSolution], share: float, seed: int
) -> tuple[list[TrainingSolution], list[TrainingSolution]]:
    """Solutions to train on, and those of the questions that are held out, chosen by hash."""
    if not 0 <= share < 1:
        raise ConfigError(f"--held-out is a share from 0 to below 1, got {share}")
    learned: list[TrainingSolution] = []
    judged: list[TrainingSolution] = []
    for solution in found:
        chance = stable_seed(seed, "held out", question_key(solution.question)) / 2**63
        (judged if chance < share else learned).append(solution)
    return learned, judged


def _classes(
    learned: Sequence[TrainingSolution], rule: LabelRule, where: str
) -> tuple[int, int, int, int]:
    """Good, bad, soft and neutral steps to learn from. Raises DataError where good and bad ones
    have the same label, and for three classes that the labels don't have.
    """
    kept = [x for s in learned for x, k in zip(s.labels, s.kept, strict=True) if k]
    n_good, n_bad, n_neutral = kept.count(1), kept.count(0), kept.count(NEUTRAL_CLASS)
    n_soft = len(kept) - n_good - n_bad - n_neutral
    if rule.has_neutral and n_soft:
        raise DataError(
            f"{where}: {n_soft} steps have soft labels, and three classes learn from hard ones; "
            "give --threshold, or --classes 2"
        )
    if rule.has_neutral and not n_neutral:
        raise DataError(
            f"{where}: no step is neutral, and --classes 3 has a class for them; set --classes 2"
        )
    if len(set(kept) - {NEUTRAL_CLASS}) < 2:
        softly = f", and {n_soft} steps of the soft label {kept[0]:g}," if n_soft else ""
        raise DataError(
            f"{where}: the {rule.name} has {n_good} good and {n_bad} bad steps{softly} to learn "
            "from and needs both; give more solutions, of harder or easier questions"
        )
    return n_good, n_bad, n_soft, n_neutral


def _train(
    learned: Sequence[TrainingSolution],
    pairs: Sequence[tuple[TrainingSolution, TrainingSolution]],
    rule: LabelRule,
    config: RunConfig,
    made: Path,
    progress: Progress,
    where: str,
) -> TrainReport:
    from glore.training.finetune import train_contrastive, train_step_classifier

    base, settings = str(config.base.reference), _settings(rule, config)
    if rule.layout != "glore":
        setup = _setup(rule, config, None, made, progress, f"{Path(where).name}")
        bare = [StepExample((s.question,), s.steps, s.labels, s.kept) for s in learned]
        other = step_layout(rule.layout)
        return train_step_classifier(base, bare, settings, setup, rule.head, other)
    layout = prompt_layout(config.prompt, base)
    data = f"{len(learned):,} solutions" if not pairs else f"{len(pairs):,} pairs of solutions"
    setup = _setup(rule, config, layout, made, progress, f"{Path(where).name}: {data}")

    def texts(steps: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(layout.steps.text, steps))

    if pairs:
        both = [
            PairExample(layout.solve(right.question), texts(right.steps), texts(wrong.steps))
            for right, wrong in pairs
        ]
        return train_contrastive(base, both, settings, setup)
    examples = step_examples(learned, layout)
    return train_step_classifier(base, examples, settings, setup, rule.head)


def _setup(
    rule: LabelRule,
    config: RunConfig,
    layout: PromptLayout | None,
    made: Path,
    progress: Progress,
    data: str,
) -> TrainingSetup:
    checkpoints = made.parent / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    is_usual = config.prompt == PromptSettings() and rule.head == BINARY
    if layout is None:
        note = note_of(step_layout(rule.layout)).decode()
    else:
        note = "" if is_usual else note_of(GloreLayout(layout), config.prompt, rule.head).decode()
    return TrainingSetup(
        out_dir=made,
        work_dir=checkpoints,
        log_dir=made.parent / "log",
        seed=stable_seed(config.seed, "training", rule.name) >> 32,
        progress=progress,
        dtype=config.base.dtype,
        device=config.engine.device,
        launch=config.launch,
        about=(f"trained by glore train {rule.name} on {data}", f"labels: {ABOUT[rule.name]}"),
        notes=((NOTE, note),) if note else (),
    )


def _judge(
    model: Path,
    judged: Sequence[TrainingSolution],
    rule: LabelRule,
    config: RunConfig,
    progress: Progress,
) -> Judged | Ranked:
    from glore.reward_models.open import open_reward_model

    progress.note(f"scoring {len(judged):,} solutions that were held out")
    with open_reward_model(model, None, config.engine, config.prompt) as scorer:
        scores = scorer.score([(s.question, s.steps) for s in judged])
    agreement = Agreement()
    for s, p in zip(judged, scores, strict=True):
        good = [_is_good(x, rule) for x in s.labels]
        labels = [x if k else None for x, k in zip(good, s.kept, strict=True)]
        agreement.add(s.question, labels, good[-1], p)
    return agreement.ranked() if rule.name == CONTRASTIVE else agreement.steps()


def _is_good(label: float, rule: LabelRule) -> bool:
    """A label where the model is judged: neutral is what the score counts it as."""
    return rule.neutral == "good" if label == NEUTRAL_CLASS else label > SOFT_IS_GOOD


def _complete_card(model: Path, held_out: Judged | Ranked | None, is_soft: bool) -> None:
    """What was measured, in the model card; `is_soft`: labels were soft."""
    lines = ["Not measured: no questions were held out (`glore train --held-out 0.1`)."]
    if isinstance(held_out, Ranked):
        lines = [
            "On the solutions of questions that were held out, with 95 % intervals over questions:",
            f"- right solutions scored above wrong ones of the same question: "
            f"{_share(held_out.above, 'questions')} with {held_out.n_pairs:,} pairs",
        ]
    elif held_out is not None:
        lines = [
            "On the steps of questions that were held out, with 95 % intervals over questions:",
            f"- judged right: {_share(held_out.natural)}",
            f"- class-balanced: {_share(held_out.balanced)}",
            *([f"A soft label above {SOFT_IS_GOOD} counts as good."] if is_soft else []),
        ]
    card = model / "README.md"
    write_text(card, with_metrics(card.read_text(encoding="utf-8"), lines))


def _share(found: Estimate, units: str = "steps") -> str:
    if found.value is None or found.low is None or found.high is None:
        return f"not measured (n={found.n:,})"
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}], n={found.n:,} {units}"
