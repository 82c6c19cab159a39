"""How a reward model says a step's label: classes of a head of its own, or tokens of the language
model (method 2), and how one probability is made of them.

Two classes are bad and good, three have neutral ones too (PRM800K's rating 0). With `label_token`
the model stays a language model: the logits of a few tokens, such as `+` and `-`, are compared
where a step ends, as in Let's Verify Step by Step and in the layouts of Math-Shepherd and RLHFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from glore.errors import ConfigError, ModelError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "BINARY",
    "CLASSES",
    "LABEL_TOKENS",
    "NEUTRAL_CLASS",
    "StepHead",
]

BAD_CLASS, GOOD_CLASS, NEUTRAL_CLASS = 0, 1, 2
CLASSES: Final = ("bad", "good", "neutral")
"""Names of the classes by their index. Good is 1 with two classes and with three."""
LABEL_TOKENS: Final = ("+", "-", "?")
"""Of good, bad and neutral steps."""
KINDS = ("classes", "label_token")
NEUTRALS = ("good", "bad")


@dataclasses.dataclass(frozen=True, slots=True)
class StepHead:
    """The head of a reward model, and what its scores mean. Raises ConfigError."""

    kind: str = "classes"
    """`classes`: a token classifier; `label_token`: a language model that says the label."""
    n_classes: int = 2
    """2: bad, good; 3: neutral too."""
    label_tokens: tuple[str, ...] = LABEL_TOKENS
    """Texts of one token each, for good, bad and neutral steps; two are enough for two classes."""
    neutral: str = "good"
    """Of three classes: what neutral counts as. p = p(good) + p(neutral), or p(good) alone."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"the head of a reward model is {' or '.join(KINDS)}, got {shown(self.kind)}"
            )
        if self.n_classes not in (2, 3):
            raise ConfigError(
                f"a reward model has 2 classes (bad, good) or 3 (neutral too), got {self.n_classes}"
            )
        if self.neutral not in NEUTRALS:
            raise ConfigError(
                f"the neutral class counts as {' or '.join(NEUTRALS)}, got {shown(self.neutral)}"
            )
        n_given = len(self.label_tokens)
        if self.says_tokens and (n_given not in (self.n_classes, len(CLASSES)) or self._repeats()):
            raise ConfigError(
                f"a reward model of {self.n_classes} classes needs as many different label tokens "
                f"(good, bad, neutral), got {shown(' '.join(self.label_tokens), 80)}"
            )

    def _repeats(self) -> bool:
        return len(set(self.label_tokens)) < len(self.label_tokens) or "" in self.label_tokens

    @property
    def says_tokens(self) -> bool:
        """Whether the model is a language model that says the label."""
        return self.kind == "label_token"

    @property
    def names(self) -> dict[int, str]:
        """Class → its name."""
        return dict(enumerate(CLASSES[: self.n_classes]))

    @property
    def good_classes(self) -> tuple[int, ...]:
        """The classes whose probabilities add up to the score of a step."""
        counts = self.n_classes == len(CLASSES) and self.neutral == "good"
        return (GOOD_CLASS, NEUTRAL_CLASS) if counts else (GOOD_CLASS,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each class's token, in the order of the classes."""
        good, bad, *rest = self.label_tokens
        return (bad, good, *rest)[: self.n_classes]

    def token_ids(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
        """The label token of each class, in the order of the classes; none for a head of classes.

        Raises ModelError for a text that is not one token of its own.
        """
        if not self.says_tokens:
            return ()
        found = tuple(_single_token(tokenizer, text) for text in self.texts)
        if len(set(found)) < len(found):
            raise ModelError(
                f"the tokenizer {_name(tokenizer)} writes two of the label tokens "
                f"{shown(' '.join(self.texts), 80)} alike; choose others (label_tokens)"
            )
        return found

    def noted(self) -> dict[str, object]:
        """What `step_layout.json` holds of it: nothing for two classes of a head of its own."""
        labels: Mapping[str, object] = dict(zip(CLASSES, self.texts, strict=False))
        return {
            **({"label_tokens": labels} if self.says_tokens else {}),
            **({"neutral": self.neutral} if self.n_classes == len(CLASSES) else {}),
        }

    @classmethod
    def of_note(cls, note: Mapping[str, object]) -> StepHead:
        """The head that `step_layout.json` notes (`noted`). Raises ConfigError."""
        neutral, labels = note.get("neutral"), note.get("label_tokens")
        is_three = neutral is not None or (isinstance(labels, dict) and CLASSES[2] in labels)
        n_classes = len(CLASSES) if is_three else 2
        found = cls("classes", n_classes, LABEL_TOKENS, str(neutral or "good"))
        if labels is None:
            return found
        names = list(found.names.values())
        if not isinstance(labels, dict) or sorted(map(str, labels)) != sorted(names):
            raise ConfigError(f"label_tokens must name {', '.join(names)}, got {shown(labels, 80)}")
        if not all(isinstance(text, str) for text in labels.values()):
            raise ConfigError(f"label_tokens must be texts, got {shown(labels, 80)}")
        tokens = tuple(labels[name] for name in ("good", "bad", "neutral") if name in labels)
        return dataclasses.replace(found, kind="label_token", label_tokens=tokens)


BINARY = StepHead()
"""Two classes of a head of its own, as ORM and SORM have by default."""


def _single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # Some tokenizers write a blank before the first word, as a token of its own.
    if len(ids) == 2 and not tokenizer.decode(ids[:1]).strip():
        ids = ids[1:]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ModelError(
            f"the tokenizer {_name(tokenizer)} has no single token {shown(text, 40)}, which says a "
            "step's label; choose other label tokens (label_tokens) or a head of classes"
        )
    return int(ids[0])


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return shown(str(tokenizer.name_or_path), 300)
