"""Studies: questions that the papers ask of a finished run, each a plan of stages over it.

study     what a study is, its settings, and the registry of all
run       runs a study over a run
rerank    the ways to reduce step scores (App. D)
where     local refinement from the first wrong step
"""

from __future__ import annotations

from glore.studies.run import run_study
from glore.studies.study import STUDIES, Study, find_study

__all__ = ["STUDIES", "Study", "find_study", "run_study"]
