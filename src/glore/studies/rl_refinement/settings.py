"""The settings of the study, and the ways to learn that it compares."""

from __future__ import annotations

from typing import Literal, NamedTuple

from glore.training.ppo.settings import PpoSettings

__all__ = ["EI", "EI_MODEL", "PROMPTED", "RlRefinementSettings", "Variant", "variants"]

PROMPTED, EI, EI_MODEL = "prompted", "EI", "rl_ei"


class RlRefinementSettings(PpoSettings):
    """Of the study `rl-refinement`: those of PPO, `prompts` being drafts, and its own."""

    variants: bool = True
    """Whether the variants of PPO are trained, too."""
    prompted: Literal["base", "student"] = "base"
    """The model that is prompted. A run with `keep: final` may have no base any more."""


class Variant(NamedTuple):
    """One training with PPO."""

    model: str
    about: str
    """As tables name it."""
    reward: Literal["difference", "orm", "gain"]
    """A key of `glore.studies.rl_refinement.rewards.REWARDS`."""
    draws_drafts: bool = False
    """Whether the policy draws the drafts, too, and learns from them."""
    from_ei: bool = False
    """Whether it starts from the refiner of EI; else from the student."""


def variants(settings: RlRefinementSettings) -> tuple[Variant, ...]:
    """The trainings with PPO."""
    more = (
        Variant("rl_ppo_no_penalty", "PPO, right drafts cost nothing", "gain"),
        Variant("rl_ppo_both", "PPO, draft and refinement", "difference", draws_drafts=True),
        Variant("rl_ppo_from_ei", "PPO, from EI", "difference", from_ei=True),
    )
    return (
        Variant("rl_ppo", "PPO", "difference"),
        Variant("rl_ppo_orm", "PPO with the ORM", "orm"),
        *(more if settings.variants else ()),
    )
