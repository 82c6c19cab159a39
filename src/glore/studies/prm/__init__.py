"""Study `prm`: reward models on step labels as people give them (App. H; Lightman et al. 2023,
*Let's Verify Step by Step*, arXiv 2305.20050).

The exact truth of the task stands in for people, on the drafts that the SORM learns from. As in
PRM800K, labels stop at the first mistake; beside that, all labels, each step judged by itself. A
step is neutral where truth and rollouts disagree: an error without consequence, or a true step
from which nobody finds the answer. Neutral counts as good, as bad, or not at all, or it is a class
of its own, whose probability is counted as good or as bad when scores are made. A model says a
label with a head of its own, or as a token of the language model, as Let's Verify's does.

- `labels=FILE`: another PRM learns from a file of labelled solutions (PRM800K's layout, or another
  of docs/formats.md), whose neutral steps count as `neutral` says, with the head of `head`,
  `classes` and `label_tokens`.
- `truth=false`: only that one, where the task knows no exact truth.

Measured: reranking by product, minimum, mean and last; ORM, SORM, PRM and majority over K (the main
figure of Let's Verify); step accuracy; and the PRM as a predictor of the final answer (App. H).

labels    the truth and rollouts → labels of each kind
models    the reward models and their trainings
results   scores, numbers, tables, the figure
"""

from __future__ import annotations

from pathlib import Path

from glore.config import Settings
from glore.config.section import LocalPath
from glore.errors import ConfigError
from glore.pipeline import Stage
from glore.step_head import LABEL_TOKENS, StepHead
from glore.studies.prm.labels import all_labels, neutral_as, until_first_mistake
from glore.studies.prm.models import (
    FILE_MODEL,
    FROM_FILE,
    file_rule,
    file_stage,
    truth_models,
    truth_stages,
)
from glore.studies.prm.results import charts, result_stages, tables
from glore.studies.study import Study

__all__ = ["STUDY", "PrmSettings", "all_labels", "neutral_as", "until_first_mistake"]


class PrmSettings(Settings):
    """Of the study `prm`."""

    labels: LocalPath | None = None
    """A file of labelled solutions."""
    neutral: str = "good"
    """What its neutral labels become: `good`, `bad` or `missing`; with three classes: what p of
    neutral counts as in a score, `good` or `bad`.
    """
    truth: bool = True
    """PRMs on the exact truth, too. False where the task does not know it."""
    head: str = "classes"
    """How the PRM of the file says labels: `classes` or `label_token`."""
    classes: int = 2
    """Of the PRM of the file: 2, or 3, where neutral is a class."""
    label_tokens: str = " ".join(LABEL_TOKENS)
    """Texts of one token each for good, bad and neutral steps, of all models that say tokens."""


def build(settings: Settings) -> Study:
    """The study with these settings. Raises ConfigError, DataError for a file that is not there."""
    assert isinstance(settings, PrmSettings)
    file_rule(settings)
    StepHead("label_token", 3, tuple(settings.label_tokens.split()))
    if settings.labels is not None and not Path(settings.labels).is_file():
        raise ConfigError(
            f"labels: there is no file {settings.labels}; give a file of labelled solutions"
        )
    fields = PrmSettings.model_fields
    of_file = ("neutral", "head", "classes")
    changed = [n for n in of_file if getattr(settings, n) != fields[n].default]
    if settings.labels is None and changed:
        raise ConfigError(f"{changed[0]} is for the PRM of a file; give one, labels=FILE")
    if settings.labels is None and not settings.truth:
        raise ConfigError("truth: false leaves nothing to learn from; give a file, labels=FILE")
    return Study(
        "prm",
        "Reward models on step labels as people give them, against ORM, SORM and majority (App. H; "
        "Let's Verify Step by Step).",
        lambda config: _stages(settings),
        lambda config, folder: tables(folder),
        lambda config, folder: charts(folder),
        settings=settings,
        build=build,
    )


def _stages(settings: PrmSettings) -> tuple[Stage, ...]:
    models: dict[str, str] = {}
    found: tuple[Stage, ...] = ()
    if settings.truth:
        models |= truth_models()
        found += truth_stages(tuple(settings.label_tokens.split()))
    if settings.labels is not None:
        models[FROM_FILE] = FILE_MODEL
        found += (file_stage(settings),)
    return (*found, *result_stages(models))


STUDY = build(PrmSettings())
