"""The settings of the study `shepherd`, and the trainings with PPO that it compares."""

from __future__ import annotations

from typing import Literal, NamedTuple

from glore.training.ppo.settings import PpoSettings

__all__ = ["POLICIES", "ShepherdSettings", "StepPolicy"]

PRM = "shepherd_hard"


class ShepherdSettings(PpoSettings):
    """Of the study `shepherd`: those of PPO, `prompts` being questions, and its own."""

    policy: bool = True
    """Whether policies are trained with the rewards, too."""


class StepPolicy(NamedTuple):
    """One training with PPO."""

    model: str
    about: str
    """As tables name it."""
    judge: str
    """The reward model; empty: the right answer."""
    reward: Literal["steps", "minimum", "end"]


POLICIES = (
    StepPolicy("shepherd_ppo_steps", "PPO, step scores", PRM, "steps"),
    StepPolicy("shepherd_ppo_minimum", "PPO, minimum", PRM, "minimum"),
    StepPolicy("shepherd_ppo_orm", "PPO, ORM at the end", "orm", "end"),
    StepPolicy("shepherd_ppo_right", "PPO, right answer at the end", "", "end"),
)
