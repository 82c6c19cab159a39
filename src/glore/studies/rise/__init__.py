"""Study `rise`: does a model that is asked again improve, and which part of its training does it?

RISE (Qu et al. 2024, arXiv 2407.18219) trains a model to improve its own last attempt: the attempts
are its own, right ones among them, the improved ones are the best of N of the model itself,
weighted by exp(reward / τ), and turns follow each other at test time, with a majority over them.
GLoRe's refiner learns from wrong drafts of the student alone, and needs an ORM to keep right ones.
The study takes these differences one at a time, each model with as many examples and the settings
of the run's refiner.

Assumptions, where RISE has it otherwise: a turn sees one attempt, not the conversation, unless
`window=K` gives it the last K (four are the whole conversation of five turns); there are two
rounds, the first on the run's samples of the student (whose best of N don't see the attempt
before); every round starts from the student, on the examples of all rounds, as expert iteration
does; weights are rounded to whole numbers (12 to 1 at τ = 0.4). An ablation of round 2 would train
two models more, so the ablations are those of round 1.

examples  states, improved attempts, weights
turns     attempts in turns
stages    data, trainings, turns on the test questions
results   accuracy by turn, what turns change, differences
"""

from __future__ import annotations

from pydantic import Field

from glore.config import Settings
from glore.studies.rise.results import results, rise_charts, rise_findings, rise_tables
from glore.studies.rise.stages import N_TURNS, rise_stages
from glore.studies.study import Study

__all__ = ["STUDY", "RiseSettings"]


class RiseSettings(Settings):
    """Of the study `rise`."""

    window: int = Field(1, ge=1, le=N_TURNS - 1)
    """How many of the last attempts a turn of RISE sees, in training and on the test questions.
    GLoRe's refiner sees one.
    """


def build(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, RiseSettings)
    return Study(
        "rise",
        "RISE's turns against GLoRe's refiner, one difference at a time (arXiv 2407.18219).",
        lambda config: (*rise_stages(config, settings.window), results),
        rise_tables,
        rise_charts,
        rise_findings,
        settings=settings,
        build=build,
    )


STUDY = build(RiseSettings())
