"""Write reward models so that other libraries load them, and say what they must be given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from glore.config import PromptSettings
from glore.errors import ModelError, shown
from glore.model_cards import exported_card
from glore.model_folder import open_folder
from glore.model_weights import weight_headers
from glore.reward_models.heads import head_prefix
from glore.reward_models.layouts import NOTE, note_of, noted_head
from glore.reward_models.open import layout_at, prompt_at
from glore.step_layouts.parts import Item, StepLayout, score_positions, token_ids

__all__ = ["EncodedSolution", "encode_solutions", "export_reward_model"]


class EncodedSolution(NamedTuple):
    """What a server of the reward model is given for one solution."""

    token_ids: list[int]
    positions: list[int]
    """Where to read each step's score: the class 1 (good) at this token."""


def encode_solutions(
    path: str | Path,
    items: Sequence[Item],
    layout: str | StepLayout | None = None,
    prompt: PromptSettings | None = None,
) -> list[EncodedSolution]:
    """(question, steps) of each solution → token ids and score positions, for the reward model at
    `path` served by another program, such as vLLM's pooling runner. Loads the tokenizer alone.

    The arguments are those of `open_reward_model`, which reads at the same positions. Raises
    ModelError, ConfigError.
    """
    from glore.models import load_tokenizer

    chosen = layout_at(path, layout, prompt)
    encoded = chosen.encode(load_tokenizer(path), items)
    return [EncodedSolution(token_ids(parts), score_positions(parts)) for parts in encoded]


def export_reward_model(
    path: str | Path,
    folder: str | Path,
    layout: str | StepLayout | None = None,
    dtype: str = "float32",
) -> Path:
    """Write the reward model at `path` to `folder` as a two-class token classifier
    (AutoModelForTokenClassification, 1 = good), which vLLM's pooling runner serves too.

    A language model that says `+` or `-` and a value head become two classes with the same scores.
    `step_layout.json` in the folder says how questions and steps are written, so that
    `open_reward_model` scores alike. Weights are safetensors. Raises ModelError: for Qwen's head of
    two layers, which is no such classifier and which vLLM serves as it is; for a folder that is
    there already; for a model with three classes; where the disk refuses.
    """
    from glore.models import STEP_LABELS, load_tokenizer, name_classes, save_model
    from glore.reward_models.classifiers import load_classifier

    target, where = Path(folder), f"can't export the reward model {shown(str(path))}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{where}: {target} is there already; remove it or name another folder")
    chosen = layout_at(path, layout)
    found = open_folder(path, "reward model")
    if head_prefix(weight_headers(found, where)) == "score.":
        raise ModelError(
            f"{where}: its head has two layers (Qwen2ForProcessRewardModel), which no token "
            "classifier of transformers has; vLLM serves that folder as it is"
        )
    if noted_head(found.folder, where).n_classes > len(STEP_LABELS):
        raise ModelError(
            f"{where}: it has three classes (bad, good, neutral), and a reward model for TRL and "
            "vLLM has two, whose second one is the score; train it with two (glore train … "
            "--classes 2 --neutral good)"
        )
    tokenizer = load_tokenizer(path)
    model = load_classifier(path, chosen.name, tokenizer, dtype)
    name_classes(model.config, len(STEP_LABELS))
    prompt = prompt_at(path) if chosen.name == "glore" else None
    save_model(
        model,
        tokenizer,
        target,
        exported_card(target.name, str(path), chosen.name),
        {NOTE: note_of(chosen, prompt)},
    )
    return target
