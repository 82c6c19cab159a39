"""Open a reward model of any layout as a scorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glore.adapter_folder import is_own_adapter
from glore.chat_template import prompt_layout
from glore.config import EngineSettings, PromptSettings
from glore.errors import ModelError, shown
from glore.model_folder import SAFE, SAFE_INDEX, is_pickled, open_folder
from glore.model_weights import weight_headers
from glore.prompts import PLAIN, PromptLayout
from glore.reward_models.layouts import (
    detected,
    good_classes,
    noted_head,
    noted_layout,
    noted_prompt,
    step_layout,
)
from glore.step_head import BINARY
from glore.step_layouts.apart import GloreLayout
from glore.step_layouts.parts import StepLayout
from glore.step_layouts.question import QuestionScored

if TYPE_CHECKING:
    from glore.engines.local.scorer import StepScorer

__all__ = ["layout_at", "layout_in_run", "open_model_of_run", "open_reward_model", "prompt_at"]


def open_reward_model(
    path: str | Path,
    layout: str | StepLayout | None = None,
    engine: EngineSettings | None = None,
    prompt: PromptSettings | None = None,
    neutral: str | None = None,
) -> StepScorer:
    """The reward model at `path` (a folder, a Hub name or NAME@REVISION) as a scorer, which the
    caller closes: `with open_reward_model(…) as scorer: scorer.score([(question, steps)])`.

    `layout`: how questions and steps are written (`glore.reward_models.layouts.LAYOUTS`); none:
    what the folder tells. `engine`: device, dtype and batch size; `prompt`: how a model of ours was
    trained to be prompted (none: as its run says, plain without a run). `neutral`: what the neutral
    class of a model with three counts as, `good` or `bad` (none: as its folder says). Scores are
    the probability that the step is good, in [0, 1], whatever the layout. Weights are read from
    safetensors only, and no code of the folder is run. Raises ModelError, ConfigError.
    """
    from glore.engines.local.scorer import StepScorer
    from glore.models import load_tokenizer
    from glore.reward_models.classifiers import load_classifier

    settings = engine or EngineSettings()
    chosen = layout_at(path, layout, prompt)
    tokenizer = load_tokenizer(path)
    model = load_classifier(path, chosen.name, tokenizer, settings.dtype, settings.device)
    good = good_classes(path, neutral)
    scorer = StepScorer.of(
        model, tokenizer, settings.scoring_tokens, layout=chosen, good_classes=good
    )
    scorer.name = str(path)
    return scorer


def open_model_of_run(
    folder: str | Path,
    engine: EngineSettings,
    prompt: PromptLayout = PLAIN,
    *,
    with_question: bool = False,
    logs_warning: bool = True,
    neutral: str | None = None,
) -> StepScorer:
    """A reward model of a run as a scorer, which the caller closes. Its inputs look as the folder's
    own `step_layout.json` says (a model that was ready, or trained with another prompt), else ours
    with this layout of prompts. `with_question`: the bare question has a score too, before those of
    the steps. `logs_warning`: as in `open_engine`; `neutral`: as in `open_reward_model`, where the
    folder says that the model has three classes.

    Raises ModelError, ConfigError.
    """
    from glore.engines.open import open_scorer

    ours = layout_in_run(folder, prompt)
    chosen = QuestionScored(ours) if with_question else ours
    if not isinstance(ours, GloreLayout):
        return open_reward_model(folder, chosen, engine)
    where = f"can't load a reward model from {shown(str(folder))}"
    if noted_head(Path(folder), where) != BINARY:
        return open_reward_model(folder, chosen, engine, neutral=neutral)
    layout = chosen if with_question else ours.prompt
    return open_scorer(folder, engine, layout, logs_warning=logs_warning)


def layout_in_run(folder: str | Path, prompt: PromptLayout = PLAIN) -> StepLayout:
    """The layout of a reward model of a run, as `open_model_of_run` takes it. Raises ModelError,
    ConfigError.
    """
    where = f"can't load a reward model from {shown(str(folder))}"
    noted = noted_layout(Path(folder), where)
    if noted is not None and noted.name != "glore":
        return noted
    asked = noted_prompt(Path(folder), where)
    return GloreLayout(prompt if asked is None else prompt_layout(asked, folder))


def layout_at(
    path: str | Path, layout: str | StepLayout | None = None, prompt: PromptSettings | None = None
) -> StepLayout:
    """The layout of the reward model at `path`, as `open_reward_model` takes it. Reads no weights.

    Raises ModelError, ConfigError.
    """
    where = f"can't load a reward model from {shown(str(path))}"
    _refuse_pickles(path, where)
    if layout is not None and not isinstance(layout, str):
        return layout
    is_ours = is_own_adapter(Path(path))  # its base has the weights
    found = open_folder(path, "reward model", weights=not is_ours)
    noted = noted_layout(found.folder, where)
    if layout is None and noted is not None:
        layout = noted.name
    if layout is None and is_ours:
        layout = "glore"
    name = layout or detected(found, weight_headers(found, where), where)
    if name != "glore":
        return noted if noted is not None and noted.name == name else step_layout(name)
    return step_layout(name, prompt=prompt_layout(prompt or prompt_at(path), path))


def prompt_at(path: str | Path) -> PromptSettings:
    """How the model of ours at `path` was trained to prompt: as its folder or its run says; plain
    where neither does. Raises ModelError, RunError, ConfigError.
    """
    found = open_folder(path, "reward model", weights=False)
    where = f"can't load a reward model from {shown(str(path))}"
    return noted_prompt(found.folder, where) or _prompt_of_run(found.folder) or PromptSettings()


def _prompt_of_run(folder: Path) -> PromptSettings | None:
    """How the run that holds this model folder (RUN/models/NAME) prompts; none outside a run.

    Raises RunError, ConfigError for a run that can't be read.
    """
    from glore.pipeline.integrity import makers
    from glore.pipeline.recorded import made_with

    run_dir = folder.resolve().parent.parent
    if folder.resolve().parent.name != "models" or not (run_dir / "config.yaml").is_file():
        return None
    return made_with(run_dir, makers(run_dir, (folder.name,))).prompt


def _refuse_pickles(path: str | Path, where: str) -> None:
    folder = Path(path)
    named = folder.is_file() and is_pickled(folder)
    if folder.is_dir() and not any((folder / name).exists() for name in (SAFE, SAFE_INDEX)):
        pickles = sorted(p for p in folder.iterdir() if is_pickled(p))
        folder = pickles[0] if pickles else folder
        named = bool(pickles)
    if named:
        raise ModelError(
            f"{where}: its weights are pickled ({shown(folder.name)}), and pickles can run code "
            "when they are read; convert them to safetensors first (docs/reward-models.md says how)"
        )
