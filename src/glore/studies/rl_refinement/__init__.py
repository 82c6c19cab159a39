"""Study `rl-refinement`: refiners that are prompted, or learn by expert iteration or PPO (App. C).

Four ways to refine a draft globally, all on the same test drafts:

- prompted: the base model (or the student), with one worked refinement in its prompt;
- EI: fine-tuned as the run's refiner is, on pairs of a wrong and a right sample of one question;
- PPO: the student, rewarded with 1[R right] − 1[D right] for its refinement R of a draft D;
- PPO with the ORM: rewarded with max(that, ORM(R) − ORM(D)).

Three variants of PPO (`variants=false` leaves them out): refining right drafts costs nothing, so
the reward is at least 0; one model draws draft and refinement, and both are learned with the reward
of the pair; PPO starts from the refiner of EI. The collapse to copying is measured: the share of
refinements that repeat their draft, in every round and on the test drafts.

Assumptions where the paper is silent: drafts in training are the run's samples of the student;
global marks as the run sets them; `[BAD]` says nothing of where the error is; PPO is that of
`glore.training.ppo` with settings of our own; PPO starts from the student. The paper draws 96
samples of each question for EI; here they are the run's (`reward.samples`).

settings  what the study can set
rewards   what a refinement earns
play      a round: drafts refined by the policy
stages    trainings and refinements of the test drafts
results   accuracy, fixed, broken, copied; curves over the rounds
"""

from __future__ import annotations

from glore.config import Settings
from glore.studies.rl_refinement.results import charts, findings, results_of, tables
from glore.studies.rl_refinement.settings import RlRefinementSettings
from glore.studies.rl_refinement.stages import refinement_stages
from glore.studies.study import Study

__all__ = ["STUDY"]


def _study(settings: Settings) -> Study:
    assert isinstance(settings, RlRefinementSettings)
    return Study(
        "rl-refinement",
        "Refiners that are prompted, or learn by expert iteration or PPO (App. C).",
        lambda config: (*refinement_stages(config, settings), results_of(settings)),
        lambda config, folder: tables(folder, settings),
        lambda config, folder: charts(folder),
        lambda config, folder: findings(folder),
        settings=settings,
        build=_study,
    )


STUDY = _study(RlRefinementSettings())
