"""The README.md of a model folder: what the model was made from and with, how good it was measured
to be, how to load it in three libraries, and what it is not good for.

Loaders don't read it and digests leave it out, so people may edit it. Equal trainings write equal
cards: no times, no paths of the machine but those that the recipe names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from glore.config import Settings

__all__ = ["NOT_MEASURED", "exported_card", "model_card", "ready_card", "with_metrics"]

NOT_MEASURED = "Not measured yet. The run's last stage, `evaluate`, writes the numbers here."
_METRICS = re.compile(r"(?<=^## Metrics\n)(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_FRAME = {
    "causal": (
        "The text before an answer is `Question: …` and `Answer:`, each with a line break (or the "
        "model's chat template, `prompt.style`). Question and steps are encoded one by one (one "
        "segment a step)."
    ),
    "steps": (
        "Its input is the question (`Question: …`, `Answer:`, or a chat) and the steps, each with "
        "its line break and encoded by itself; p(good) of a step is class 1 at the step's last "
        "token."
    ),
    "pairs": (
        "Its input is the question (`Question: …`, `Answer:`, or a chat) and the steps, each with "
        "its line break and encoded by itself. The score of a solution is class 1 at its last "
        "token, σ(r), trained with −log σ(r_right − r_wrong) on pairs of a right and a wrong "
        "solution of one question. It ranks solutions of one question; 0.5 means nothing, and the "
        "scores of the other steps were not trained."
    ),
}
_FRAME["classes_3"] = _FRAME["steps"].replace(
    "p(good) of a step is class 1 at the step's last token.",
    "the classes of a step are read at its last token. The score is p(good) + p(neutral), or "
    "p(good) alone where step_layout.json says that neutral counts as bad.",
)
_FRAME["label_token"] = _FRAME["steps"].replace(
    "p(good) of a step is class 1 at the step's last token.",
    "where a step ends, the logits of the label tokens (step_layout.json) are compared. The next "
    "step follows without the token.",
)
_LOAD = {
    "causal": """\
```python
# transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)

# vLLM
from vllm import LLM
llm = LLM(model=FOLDER)

# glore: refine with the other models of its run
import glore
refinement = glore.Refiner.from_run(RUN)("How many …?")
```
""",
    "steps": """\
```python
# glore
import glore
with glore.open_reward_model(FOLDER) as scorer:
    [scores] = scorer.score([("How many …?", ("first step", "#### 5"))])

# transformers: class 1 at positions
import torch
from transformers import AutoModelForTokenClassification
[solution] = glore.encode_solutions(FOLDER, [("How many …?", ("first step", "#### 5"))])
model = AutoModelForTokenClassification.from_pretrained(FOLDER).eval()
logits = model(torch.tensor([solution.token_ids])).logits[0, solution.positions]
scores = logits.softmax(-1)[:, 1]

# vLLM: probabilities of all tokens
from vllm import LLM
llm = LLM(model=FOLDER, runner="pooling")
[output] = llm.encode([{"prompt_token_ids": solution.token_ids}], pooling_task="token_classify")
scores = output.outputs.data[solution.positions, 1]

# TRL: as a reward
from trl import GRPOTrainer
reward = glore.reward_function(FOLDER)
trainer = GRPOTrainer(model=POLICY, reward_funcs=reward, train_dataset=DATA)
```
""",
}
# The score of the last step is the solution's.
_LOAD["pairs"] = (
    _LOAD["steps"]
    .replace("[scores] = ", "[(*_, score)] = ")
    .replace("class 1 at positions", "class 1 at the last position")
    .replace("scores = logits.softmax(-1)[:, 1]", "score = logits.softmax(-1)[-1, 1]")
    .replace(
        "scores = output.outputs.data[solution.positions, 1]",
        "score = output.outputs.data[solution.positions[-1], 1]",
    )
)
_LOAD["classes_3"] = _LOAD["label_token"] = _LOAD["steps"]
_ONLY_HERE = ("classes_3", "label_token")
_LIMITS = {
    "causal": (
        "Not an assistant and not a general model: it was trained on the questions of one task and "
        "answers in that task's form. It was not checked for anything but the final answer of such "
        "questions: not for other subjects, other languages, truth or safety."
    ),
    "steps": (
        "Its scores are probabilities for solutions like those it was trained on: by the same "
        "student, for the same task, in the same form. For another model's solutions they are "
        "uncalibrated until measured. A reward model can be fooled: in training against it, watch "
        "the answers themselves. It says nothing about truth or safety of other text."
    ),
    "pairs": (
        "Its scores compare solutions of one question, like those it was trained on: by the same "
        "student, for the same task, in the same form. They are no probabilities that an answer "
        "is right, don't compare solutions of two questions, and don't find the wrong step of one. "
        "A reward model can be fooled: in training against it, watch the answers themselves. It "
        "says nothing about truth or safety of other text."
    ),
}

_LIMITS["classes_3"] = _LIMITS["label_token"] = _LIMITS["steps"]


class _Report(Protocol):
    """What a card says of a training (`glore.training.examples.TrainReport`)."""

    @property
    def n_rows(self) -> int: ...
    @property
    def n_dropped(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def final_loss(self) -> float: ...


def model_card(
    name: str,
    what: str,
    kind: str,
    settings: Settings,
    report: _Report,
    seed: int,
    about: Sequence[str] = (),
    only_here: bool = False,
) -> str:
    """The card of a model that was trained here, Markdown without front matter.

    `what`: the model in a sentence, with its base; `kind`: `causal`, `steps`, `classes_3`,
    `label_token` or `pairs`; `about`: its data and recipe, a line each; `only_here`: a reward
    model that nothing but glore opens (`glore.step_classes`).
    """
    lines = [
        f"# {name}",
        "",
        what,
        _FRAME[kind],
        "",
        "## Data and recipe",
        *(f"- {line}" for line in about or ["not made by a run: its caller gave the examples"]),
        "",
        "## Training",
        f"- rows: {report.n_rows} (left out as too long or without a target: {report.n_dropped})",
        f"- tokens seen: {report.n_tokens}",
        f"- optimiser steps: {report.n_steps}",
        f"- training loss, last tenth of the steps: {report.final_loss:.4f}",
        f"- seed: {seed}",
        "",
        "## Settings",
        *(f"- {key}: {value}" for key, value in settings.model_dump().items()),
        "",
        "## Metrics",
        NOT_MEASURED,
        "",
        *_use(kind, only_here),
    ]
    return "\n".join(lines)


def exported_card(name: str, source: str, layout: str) -> str:
    """The card of a reward model that was written again as a token classifier."""
    lines = [
        f"# {name}",
        "",
        f"The reward model {source} (layout {layout}, see step_layout.json), written by glore as a "
        "two-class token classifier: 0 bad, 1 good, at the last token of each step. Its scores are "
        "those of its source up to rounding; what is known of it, its source says.",
        "",
        *_use("steps"),
    ]
    return "\n".join(lines)


def ready_card(name: str, source: str, layout: str) -> str:
    """The card of a reward model that a run took as it was."""
    lines = [
        f"# {name}",
        "",
        f"The reward model {source} (layout {layout}, see step_layout.json), copied by a glore run "
        "as it is; what is known of it, its source says.",
        "",
        "## Metrics",
        NOT_MEASURED,
        "",
        *_use("steps"),
    ]
    return "\n".join(lines)


def with_metrics(card: str, lines: Sequence[str]) -> str:
    """The card with these lines as its section `Metrics`. A card without one stays as it is."""
    text = "\n".join([*lines, "", ""])
    return _METRICS.sub(lambda _: text, card, count=1)


def _use(kind: str, only_here: bool = False) -> list[str]:
    load = _only_ours(_LOAD[kind]) if only_here or kind in _ONLY_HERE else _LOAD[kind]
    return ["## How to load it", load, "## What it is not good for", _LIMITS[kind], ""]


def _only_ours(load: str) -> str:
    """The part of how to load a reward model that needs glore alone."""
    return f"{load.partition('# transformers')[0].rstrip()}\n```\n"
