"""Runs stages over a run folder. Knows no machine learning.

stage         a stage as data: what it reads and makes
view          the settings as one stage sees them
chosen        the engine that engine.kind=auto stands for
reuse         what will be done about each stage, and why
run           runs stages: reuse, resume
context       what a stage gets: settings, records, shards, models
open_models   the models that a stage has open
fingerprints  what a result depends on, as one hash
folder        the files of a run folder, and its lock
marks         done.json and started.json
recorded      the settings that a run's records were made with
swap          several stages' folders exchanged together
"""

from __future__ import annotations

from glore.pipeline.context import StageContext
from glore.pipeline.reuse import StagePlan, plan_stages
from glore.pipeline.run import run_stages
from glore.pipeline.stage import Stage, ancestors, declare

__all__ = [
    "Stage",
    "StageContext",
    "StagePlan",
    "ancestors",
    "declare",
    "plan_stages",
    "run_stages",
]
