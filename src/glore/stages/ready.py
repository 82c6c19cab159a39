"""Stage: a reward model that the recipe names, ours or another's, in place of a training
(`reward.ready`).

It is copied into the run as it is, with the layout of its inputs beside it (`step_layout.json`). So
all that reads the run finds it where a trained one would be, and the run can be moved. Its content
is part of the fingerprint. The stage stands right after the base and scores one solution, so that a
model that does not fit is refused before anything is sampled.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping

from glore.config import RunConfig
from glore.config.training import is_local
from glore.errors import GloreError, shown
from glore.files import replacing_folder
from glore.model_cards import ready_card
from glore.model_folder import open_folder
from glore.pipeline import Stage, StageContext
from glore.pipeline.fingerprints import model_contents, model_files
from glore.reward_models.layouts import NOTE, note_of, noted_head
from glore.reward_models.open import layout_at, open_reward_model, prompt_at

__all__ = ["ready_stages"]

TRIAL = ("1 + 1 = ?", ("1 + 1 = 2", "#### 2"))
"""Question and steps."""


def ready_stages(config: RunConfig) -> dict[str, Stage]:
    """Model → the stage that takes it, for the reward models that the recipe names."""
    return {name: _ready(name) for name in ("orm", "sorm") if getattr(config.reward.ready, name)}


def _ready(model: str) -> Stage:
    setting = f"reward.ready.{model}"
    return Stage(
        model,
        functools.partial(_take, model),
        reads=(setting, f"{setting}_layout"),
        uses=("engine",),
        models=(model,),
        delivers=(model,),
        opens=lambda _: (),
        contents=functools.partial(_contents, model),
        checks=(functools.partial(_check, model),),
    )


def _named(config: RunConfig, model: str) -> tuple[str, str | None]:
    """Folder or Hub name, and layout."""
    ready = config.reward.ready
    return str(getattr(ready, model)), getattr(ready, f"{model}_layout")


def _contents(model: str, config: RunConfig) -> Mapping[str, str | None]:
    return model_contents(_named(config, model)[0], f"reward.ready.{model}")


def _check(model: str, config: RunConfig) -> None:
    """Raise ModelError or ConfigError for a folder that holds no reward model of a known layout. A
    Hub name is looked at when its stage begins.
    """
    path, layout = _named(config, model)
    if is_local(path):
        layout_at(path, layout)


def _take(model: str, ctx: StageContext) -> None:
    path, layout = _named(ctx.config, model)
    chosen = layout_at(path, layout)
    prompt = prompt_at(path) if chosen.name == "glore" else None
    found = open_folder(path, "reward model")
    head = noted_head(found.folder, f"can't load a reward model from {shown(path)}")
    target = ctx.new_model_dir(model)
    with replacing_folder(target) as folder:
        for name, file in model_files(found.folder).items():
            shutil.copyfile(file, folder / name)
        (folder / NOTE).write_bytes(note_of(chosen, prompt, head))
        card = ready_card(model, path, chosen.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
    _try(ctx, model, path)
    ctx.progress.note(f"models/{model} is {path} (layout {chosen.name})")


def _try(ctx: StageContext, model: str, path: str) -> None:
    """Score one solution. Raises the GloreError of a model that can't, which names the setting."""
    try:
        scorer = open_reward_model(ctx.model_dir(model), None, ctx.config.engine)
        ctx.keep(scorer, model).score([TRIAL])
    except GloreError as error:
        raise type(error)(f"reward.ready.{model} ({path}): {error}") from error
    ctx.release(model)
