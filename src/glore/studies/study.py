"""What a study is: a plan of declared stages over a finished run, and tables, charts and sentences
made of their records.

To add one, write a file like `where.py` and add its line to `STUDIES`. A study of your own needs
no change here: an installed package names it under the entry point group `glore.studies`, as
`NAME = "module:STUDY"`.

A study may have settings of its own (`glore study NAME RUN samples=32`). Then a function makes the
study from them, and `STUDY` is what it makes of the defaults. What a stage's result depends on of
them stands in `own` of its declaration.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from glore.config import RunConfig, Settings, section_of
from glore.config.plugins import imported, plugin, plugin_names
from glore.errors import ConfigError, shown
from glore.pipeline import Stage
from glore.report.charts import Chart
from glore.report.views import TableView

__all__ = ["STUDIES", "NoSettings", "Study", "configured", "find_study", "own_settings"]

STUDIES: Mapping[str, str] = MappingProxyType(
    {
        "budget": "glore.studies.budget:STUDY",
        "contrastive": "glore.studies.contrastive:STUDY",
        "generalisation": "glore.studies.generalisation:STUDY",
        "labels": "glore.studies.labels:STUDY",
        "pessimism": "glore.studies.pessimism:STUDY",
        "postprocessing": "glore.studies.postprocessing:STUDY",
        "prm": "glore.studies.prm:STUDY",
        "processbench": "glore.studies.processbench:STUDY",
        "rerank": "glore.studies.rerank:STUDY",
        "rise": "glore.studies.rise:STUDY",
        "rl-refinement": "glore.studies.rl_refinement:STUDY",
        "self-filter": "glore.studies.self_filter:STUDY",
        "shepherd": "glore.studies.shepherd:STUDY",
        "value": "glore.studies.value:STUDY",
        "when-to-stop": "glore.studies.when_to_stop:STUDY",
        "where": "glore.studies.where:STUDY",
        "where-refined": "glore.studies.where_refined:STUDY",
    }
)
"""Name → where it is."""
GROUP = "glore.studies"


class NoSettings(Settings):
    """Of a study without settings of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
    """A question asked of a finished run."""

    name: str
    about: str
    """One sentence: what is compared, and the source."""
    stages: Callable[[RunConfig], tuple[Stage, ...]]
    """Its stages, in order. Their inputs are stages of the run, or of the study before them."""
    tables: Callable[[RunConfig, Path], list[TableView]]
    """Its tables, from the run's settings and the folder that holds the study's `stages/`."""
    charts: Callable[[RunConfig, Path], list[Chart]] = lambda config, folder: []
    """Its charts, from the same."""
    findings: Callable[[RunConfig, Path], list[str]] = lambda config, folder: []
    """What came out, in a few sentences, from the same."""
    after: tuple[str, ...] = ()
    """Other studies whose stages its own may read. Those that it reads are computed first, in the
    other study's folder, unless they are there.
    """
    settings: Settings = dataclasses.field(default_factory=NoSettings)
    """Its own settings, as they were given."""
    build: Callable[[Settings], Study] | None = None
    """Other settings of the same class → the study with them; none: it has no settings."""

    @property
    def asked(self) -> str:
        """What it is about, and its settings that are no defaults."""
        given = self.settings.model_dump(mode="json", exclude_defaults=True)
        changed = [f"{name}={value}" for name, value in given.items()]
        return f"{self.about} Settings: {', '.join(changed)}." if changed else self.about


def find_study(name: str) -> Study:
    """The study of that name. Raises ConfigError with the nearest known one."""
    known = [*STUDIES, *sorted(plugin_names(GROUP) - STUDIES.keys())]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"there is no study {shown(name)}; {hint}")
    study = imported(STUDIES[name]) if name in STUDIES else plugin(GROUP, name)
    if not isinstance(study, Study):
        raise ConfigError(
            f"the entry point {name} in {GROUP} is {shown(study)}; it must name a "
            "glore.studies.Study"
        )
    return study


def own_settings(study: Study, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the command line → those of the study's own settings, and those of the run's. A
    key without a dot that the study has, or that no section of a run has, is one of the study.
    """
    own = type(study.settings).model_fields
    mine = [
        o
        for o in overrides
        if o.partition("=")[0].strip() in own or _first(o) not in RunConfig.model_fields
    ]
    return mine, [o for o in overrides if o not in mine]


def configured(study: Study, given: Mapping[str, object], overrides: Sequence[str] = ()) -> Study:
    """The study with these of its settings. Raises ConfigError for one that it does not have."""
    if not given and not overrides:
        return study
    kind = type(study.settings)
    if study.build is None:
        raise ConfigError(
            f"study {study.name} has no settings of its own, got "
            f"{', '.join(map(shown, [*given, *overrides]))}"
        )
    return study.build(section_of(kind, given, overrides, f"study {study.name}"))


def _first(override: str) -> str:
    return override.partition("=")[0].strip().partition(".")[0]
