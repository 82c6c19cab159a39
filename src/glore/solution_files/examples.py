"""Labels of a file → labels to train on, of one rule.

orm          every step has the label of the final answer
sorm         the file's step labels, as verifying rollouts make them
prm          the file's step labels, whoever made them
contrastive  pairs of a solution with a right and one with a wrong final answer

A label never moves to another step. Steps without a label stay in the text and out of the loss.
Soft labels are not rounded unless a threshold is given: a step of label p is learned as good with
weight p and as bad with weight 1 − p.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from glore.errors import ConfigError, DataError, shown
from glore.formats import LabelledSolution
from glore.formats.labelled import NEUTRAL, Label
from glore.formats.writing import NEUTRAL_AS
from glore.prompts import PromptLayout
from glore.records import Solution
from glore.solution_files.answers import question_key
from glore.solution_files.graded import VERDICTS, solution_names
from glore.step_head import BINARY, LABEL_TOKENS, NEUTRAL_CLASS, StepHead
from glore.when import contrastive_pairs

if TYPE_CHECKING:
    from glore.training.examples import StepExample

__all__ = [
    "CONTRASTIVE",
    "OF_ANSWERS",
    "OF_OTHERS",
    "RULES",
    "LabelRule",
    "TrainingSolution",
    "head_for",
    "step_examples",
    "step_head",
    "training_pairs",
    "training_solutions",
]

CONTRASTIVE = "contrastive"
RULES = ("orm", "sorm", "prm", CONTRASTIVE)
OF_OTHERS: Mapping[str, str] = MappingProxyType(
    {"trl": "classes", "math_shepherd": "label_token", "rlhflow": "label_token"}
)
"""Layouts of other libraries that a training writes → the kind of head that they have."""
OF_ANSWERS = ("orm", CONTRASTIVE)
"""Rules that learn from the verdict on the final answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelRule:
    """Which labels a reward model learns from."""

    name: str
    """One of `RULES`."""
    threshold: float | None = None
    """Soft labels above it are good; none learns them as they are."""
    neutral: str = "good"
    """What neutral labels become: a key of `glore.formats.writing.NEUTRAL_AS`. With three classes:
    what the neutral class counts as in a score, `good` or `bad`.
    """
    head: StepHead = BINARY
    """How the reward model says labels; its own `neutral` is the rule's."""
    layout: str = "glore"
    """How it reads questions and steps: ours, or one of `OF_OTHERS`."""

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ConfigError(f"a reward model can be {', '.join(RULES)}, got {shown(self.name)}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ConfigError(f"--threshold is from 0 to below 1, got {self.threshold}")
        if self.neutral not in NEUTRAL_AS:
            raise ConfigError(
                f"--neutral is one of {', '.join(NEUTRAL_AS)}, got {shown(self.neutral)}"
            )
        if self.name == CONTRASTIVE and self.head != BINARY:
            raise ConfigError(
                f"a {CONTRASTIVE} reward model compares solutions by a head of two classes; leave "
                "out --head and --classes"
            )
        if self.layout != "glore":
            self._check_layout()
        if self.has_neutral and self.name in OF_ANSWERS:
            raise ConfigError(
                f"--classes 3: the {self.name} learns whether the final answer is right, and no "
                "answer is neutral; set --classes 2, or train a prm"
            )
        if self.has_neutral and self.neutral == "missing":
            raise ConfigError(
                "--neutral missing leaves neutral steps out, so there is no third class to learn; "
                "set --classes 2, or --neutral good or bad"
            )

    def _check_layout(self) -> None:
        kind = OF_OTHERS.get(self.layout)
        if kind is None:
            raise ConfigError(
                f"--layout of a training is glore, {', '.join(OF_OTHERS)}, got {shown(self.layout)}"
            )
        is_plain = self.head.label_tokens[:2] == LABEL_TOKENS[:2]
        if self.head.kind != kind or self.has_neutral or not is_plain or self.name == CONTRASTIVE:
            tokens = " that says + or -" if kind == "label_token" else ""
            raise ConfigError(
                f"a reward model in the layout {self.layout} has two classes and the head "
                f"{kind}{tokens}; set --head {kind} --classes 2, or leave out --layout"
            )

    @property
    def has_neutral(self) -> bool:
        """Whether neutral labels are a class of their own."""
        return self.head.n_classes > len(BINARY.names)


def step_head(kind: str, n_classes: int, label_tokens: str, neutral: str) -> StepHead:
    """What `glore train` is told of the head → the head, as `head_for` has it. Raises ConfigError,
    too, for label tokens that nothing would say.
    """
    if kind != "label_token" and tuple(label_tokens.split()) != LABEL_TOKENS:
        raise ConfigError(
            f"--label-tokens are for --head label_token, got {shown(kind)}; set that or drop them"
        )
    return head_for(kind, n_classes, label_tokens, neutral)


def head_for(kind: str, n_classes: int, label_tokens: str, neutral: str) -> StepHead:
    """What is set of a head → the head. `label_tokens`: with blanks between; `neutral`: as in
    `LabelRule`, which refuses `missing` with three classes. Raises ConfigError.
    """
    counts = neutral if n_classes > len(BINARY.names) and neutral != "missing" else "good"
    return StepHead(kind, n_classes, tuple(label_tokens.split()), counts)


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingSolution:
    """A solution with a label per step, of which those that are kept are learned."""

    id: str
    """The file's, or its number in the file."""
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    """True or false; a soft label is a float. 2 (`NEUTRAL_CLASS`): neutral, as a class."""
    kept: tuple[bool, ...]


def step_examples(solutions: Iterable[TrainingSolution], layout: PromptLayout) -> list[StepExample]:
    """Solutions as a training of a reward model in our layout reads them."""
    from glore.training.examples import StepExample

    return [
        StepExample(
            layout.solve(s.question), tuple(map(layout.steps.text, s.steps)), s.labels, s.kept
        )
        for s in solutions
    ]


def training_solutions(
    solutions: Iterable[LabelledSolution], rule: LabelRule, where: str
) -> tuple[list[TrainingSolution], Counter[str]]:
    """The solutions that can be learned from, in order, and how many were left out, by reason.

    Raises DataError for a file without labels of the rule.
    """
    found: list[TrainingSolution] = []
    left_out: Counter[str] = Counter()
    of_answers = rule.name in OF_ANSWERS
    given = list(solutions)
    for name, solution in zip(solution_names(given), given, strict=True):
        labels = _answer(solution) if of_answers else _of_steps(solution, rule)
        flags = solution.kept if solution.kept and not of_answers else (True,) * len(labels)
        kept = tuple(k and x is not None for k, x in zip(flags, labels, strict=True))
        if not any(kept):
            left_out[_reason(solution, rule)] += 1
            continue
        found.append(
            TrainingSolution(
                name, solution.question, solution.steps, tuple(x or False for x in labels), kept
            )
        )
    if not found:
        reasons = "; ".join(f"{n} {why}" for why, n in left_out.items()) or "it holds no solution"
        raise DataError(f"{where}: no solution has labels for the {rule.name}: {reasons}")
    return found, left_out


def training_pairs(
    found: Sequence[TrainingSolution], seed: int, where: str
) -> list[tuple[TrainingSolution, TrainingSolution]]:
    """A right and a wrong solution of the same question, as a run pairs them
    (`glore.when.contrastive_pairs`). Raises DataError where no question has both.
    """
    drafts = [
        Solution(
            id=s.id,
            problem_id=question_key(s.question),
            steps=s.steps,
            answer=None,
            correct=VERDICTS[bool(s.labels[-1])],
            source="file",
            draft_id=None,
            n_tokens=0,
            stop="eos",
            seed=0,
            temperature=0.0,
        )
        for s in found
    ]
    by_id = {s.id: s for s in found}
    pairs = [(by_id[a.id], by_id[b.id]) for a, b in contrastive_pairs(drafts, seed)]
    if not pairs:
        n_right = sum(d.correct == "right" for d in drafts)
        raise DataError(
            f"{where}: the {CONTRASTIVE} reward model learns from a right and a wrong solution of "
            f"the same question, and none of {len({d.problem_id for d in drafts})} questions has "
            f"both ({n_right} right and {len(drafts) - n_right} wrong solutions); give several "
            "solutions of each question"
        )
    return pairs


def _answer(solution: LabelledSolution) -> tuple[bool | None, ...]:
    """The verdict on the final answer at every step."""
    return (solution.correct,) * len(solution.steps)


def _of_steps(solution: LabelledSolution, rule: LabelRule) -> tuple[float | None, ...]:
    if solution.labels is None:
        return (None,) * len(solution.steps)
    return tuple(_target(label, rule) for label in solution.labels)


def _target(label: Label, rule: LabelRule) -> float | None:
    if label == NEUTRAL and rule.has_neutral:
        return NEUTRAL_CLASS
    if label == NEUTRAL:
        label = NEUTRAL_AS[rule.neutral]
    if isinstance(label, float) and rule.threshold is not None:
        return label > rule.threshold
    return label if isinstance(label, (bool, float)) else None


def _reason(solution: LabelledSolution, rule: LabelRule) -> str:
    if not solution.steps:
        return "without steps"
    if rule.name in OF_ANSWERS:
        return "that don't say whether the final answer is right (field correct)"
    return "without step labels to learn"
