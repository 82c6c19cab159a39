"""What a study is: a plan of declared stages over a finished run, and tables made of their records.

To add one, write a file like `rerank.py` and add its line to `STUDIES`. A study of your own needs
no change here: an installed package names it under the entry point group `glore.studies`, as
`NAME = "module:STUDY"`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from glore.config import RunConfig
from glore.config.plugins import imported, plugin, plugin_names
from glore.errors import ConfigError, shown
from glore.pipeline import Stage
from glore.report.views import TableView

__all__ = ["STUDIES", "Study", "find_study"]

STUDIES: Mapping[str, str] = MappingProxyType(
    {"rerank": "glore.studies.rerank:STUDY", "where": "glore.studies.where:STUDY"}
)
"""Name → where it is."""
GROUP = "glore.studies"


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
