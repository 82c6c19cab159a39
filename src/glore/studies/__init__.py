"""Studies: questions that the papers ask of a finished run, each a plan of stages over it.

What all share:

study         what a study is, its settings, and the registry of all
run           runs a study over a run
over_runs     runs a study over several seeds of one recipe (observed, pooled: their numbers as one)
measured      numbers as records, and the tables and charts made of them
records       what the studies read of a run; paired: one value per question, with its interval
judging       reward models of a study side by side
refining      refinements from given marks, with the run's refiner or one of the study
full_counts   all K rollouts at every step
error_kinds   what kind of error a step has
ppo_rounds    rounds of PPO as numbers
step_policy   PPO with step rewards, the second half of `shepherd`

Each other module or package here is a study; `STUDIES` names them all.
"""

from __future__ import annotations

from glore.studies.run import run_study
from glore.studies.study import STUDIES, Study, find_study

__all__ = ["STUDIES", "Study", "find_study", "run_study"]
