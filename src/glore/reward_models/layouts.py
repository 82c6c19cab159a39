"""Which layout a reward model has: named by the caller, noted in its folder, or told by its
config.json and the names of its weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from glore.adapter_folder import is_own_adapter
from glore.config import PromptSettings
from glore.errors import ConfigError, ModelError, printable, shown
from glore.model_folder import ModelFolder, open_folder, read_json
from glore.model_weights import Headers
from glore.prompts import PLAIN, PromptLayout
from glore.reward_models.heads import head_prefix
from glore.step_head import BINARY, CLASSES, StepHead
from glore.step_layouts.apart import GloreLayout, SkyworkLayout, TrlLayout
from glore.step_layouts.parts import StepLayout
from glore.step_layouts.whole_texts import MathShepherdLayout, QwenLayout, RlhflowLayout

__all__ = [
    "LAYOUTS",
    "NOTE",
    "detected",
    "good_classes",
    "note_of",
    "noted_head",
    "noted_layout",
    "noted_prompt",
    "settings_of",
    "step_layout",
]

LAYOUTS: Mapping[str, type[StepLayout]] = MappingProxyType(
    {
        "glore": GloreLayout,
        "trl": TrlLayout,
        "qwen": QwenLayout,
        "math_shepherd": MathShepherdLayout,
        "rlhflow": RlhflowLayout,
        "skywork": SkyworkLayout,
    }
)
NOTE = "step_layout.json"
"""In a folder that glore wrote for others: the layout of its inputs, by name and settings."""
OURS = (("bad", "good"), ("good", "bad"), CLASSES)
"""Names of the classes of token classifiers that glore trained."""
_KNOWN = {
    "peiyi9979/math-shepherd-mistral-7b-prm": "math_shepherd",
    "RLHFlow/Llama3.1-8B-PRM-Mistral-Data": "rlhflow",
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": "rlhflow",
}
"""Language models that are reward models, which their files don't tell."""


def step_layout(
    name: str,
    settings: Mapping[str, object] = MappingProxyType({}),
    prompt: PromptLayout = PLAIN,
) -> StepLayout:
    """The layout of that name. `settings`: fields of the layout, such as `separator`; those that
    are None keep their defaults. `prompt`: how ours writes questions and steps.

    Raises ConfigError for a name or a setting that there isn't.
    """
    kind = LAYOUTS.get(name)
    if kind is None:
        raise ConfigError(
            f"the layout of a reward model must be one of {', '.join(LAYOUTS)}, got {shown(name)}"
        )
    given = {key: value for key, value in settings.items() if value is not None}
    known = settings_of(kind)
    for key, value in given.items():
        wanted = bool if key == "numbered" else str
        if key not in known or not isinstance(value, wanted) or value == "":
            has = f"its settings are {', '.join(known)}" if known else "it has no settings"
            raise ConfigError(
                f"the layout {name} can't take {printable(key, 40)}={shown(value, 40)}; {has}"
            )
    return kind(**given) if name != "glore" else GloreLayout(prompt)


def settings_of(layout: StepLayout | type[StepLayout]) -> list[str]:
    """The names of a layout's settings; how ours prompts is none of them."""
    fields = dataclasses.fields(layout)  # type: ignore[arg-type]  # all are dataclasses
    return [field.name for field in fields if field.init and field.name != "prompt"]


def detected(found: ModelFolder, headers: Headers, where: str) -> str:
    """The layout that a folder's files tell. `where`: how a message begins.

    Raises ModelError where they don't: for a language model above all, which may be any.
    """
    named = _KNOWN.get(found.name)
    if named:
        return named
    prefix = head_prefix(headers)
    if prefix is not None:
        return {"score.": "qwen", "v_head.": "skywork"}[prefix]
    kinds = found.config.get("architectures")
    architectures = [str(kind) for kind in kinds] if isinstance(kinds, list) else []
    if any(kind.endswith("ForTokenClassification") for kind in architectures):
        labels = found.config.get("id2label")
        ours = isinstance(labels, dict) and tuple(map(str, labels.values())) in OURS
        return "glore" if ours else "trl"
    kind = printable(", ".join(architectures) or "unknown", 80)
    if any(kind.endswith("ForCausalLM") for kind in architectures):
        raise ModelError(
            f"{where}: it is a language model ({kind}), whose files don't tell the layout of its "
            "steps; name it (math_shepherd or rlhflow)"
        )
    raise ModelError(
        f"{where}: its files ({kind}) fit no known layout of reward models; name one of "
        f"{', '.join(LAYOUTS)}"
    )


def note_of(
    layout: StepLayout, prompt: PromptSettings | None = None, head: StepHead = BINARY
) -> bytes:
    """A layout as the content of `step_layout.json`. `prompt`: how ours was trained to prompt;
    `head`: how it says labels.
    """
    settings = {name: getattr(layout, name) for name in settings_of(layout)}
    asked = {} if prompt is None else {"prompt": prompt.model_dump(mode="json")}
    note = {"layout": layout.name, **settings, **asked, **head.noted()}
    return (json.dumps(note, indent=1, ensure_ascii=False) + "\n").encode()


def noted_head(folder: Path, where: str) -> StepHead:
    """How a reward model says labels, by its folder's `step_layout.json`: `BINARY` where it doesn't
    say. Raises ModelError for what is no such note.
    """
    note = read_json(folder / NOTE, where) if (folder / NOTE).is_file() else {}
    try:
        return StepHead.of_note(note)
    except ConfigError as error:
        raise _unusable(where, str(error)) from error


def noted_prompt(folder: Path, where: str) -> PromptSettings | None:
    """How a model of ours was trained to prompt, by its folder's `step_layout.json`; none: it
    doesn't say. Raises ModelError for what are no such settings.
    """
    note = read_json(folder / NOTE, where) if (folder / NOTE).is_file() else {}
    if "prompt" not in note:
        return None
    try:
        return PromptSettings.model_validate(note["prompt"])
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise _unusable(where, said) from error


def good_classes(path: str | Path, neutral: str | None = None) -> tuple[int, ...]:
    """The classes whose probabilities make the score of the reward model at `path`. `neutral`: as
    in `open_reward_model`. Raises ModelError, ConfigError for what only three classes have.
    """
    found = open_folder(path, "reward model", weights=not is_own_adapter(Path(path)))
    head = noted_head(found.folder, f"can't load a reward model from {shown(str(path))}")
    if neutral is None:
        return head.good_classes
    if head.n_classes == len(BINARY.names):
        raise ConfigError(
            f"neutral={shown(neutral, 40)} is for a reward model with a neutral class, and "
            f"{shown(str(path))} has two classes, bad and good; leave it out"
        )
    return dataclasses.replace(head, neutral=neutral).good_classes


def noted_layout(folder: Path, where: str) -> StepLayout | None:
    """The layout that a folder's `step_layout.json` holds, or none without that file.

    Raises ModelError for a file that is no such note.
    """
    if not (folder / NOTE).is_file():
        return None
    note = read_json(folder / NOTE, where)
    name = note.pop("layout", None)
    for other in ("prompt", "label_tokens", "neutral"):
        note.pop(other, None)
    try:
        return step_layout(str(name), note)
    except ConfigError as error:
        raise _unusable(where, str(error)) from error


def _unusable(where: str, why: str) -> ModelError:
    return ModelError(f"{where}: its {NOTE} can't be used: {why}; correct the file")
