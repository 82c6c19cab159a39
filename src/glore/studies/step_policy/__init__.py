"""Math-Shepherd's second half, part of the study `shepherd`: the student is improved by PPO with a
reward at the end of each step, against a reward at the end of the solution alone (Wang et al. 2024,
arXiv 2312.08935).

Rewards:

- step scores: every step earns the process reward model's score of it, as the paper has it;
- minimum: every step earns what it changes of the minimum of the scores so far, so a solution earns
  the minimum over its steps, and more steps can't earn more;
- ORM: the solution earns the ORM's score after its last step, at its last token;
- right answer: the solution earns 1 if its answer is right. No model: what the others stand in for.

The process reward model is the one of hard estimates with all completers. Whether the policy learns
to please it rather than to solve (reward hacking) is measured: mean reward beside accuracy, steps
and tokens of a solution, round by round.

settings  what it can set, and the trainings that it compares
play      a round: the policy solves questions, and its steps are rewarded
stages    trainings, and solutions of the test questions
results   accuracy, reward by round
"""

from __future__ import annotations

from glore.studies.step_policy.results import policy_charts, policy_results, policy_tables
from glore.studies.step_policy.settings import ShepherdSettings
from glore.studies.step_policy.stages import policy_stages

__all__ = [
    "ShepherdSettings",
    "policy_charts",
    "policy_results",
    "policy_stages",
    "policy_tables",
]
