"""Runs stages over a run folder. Knows no machine learning.

run           runs stages: reuse, resume, why
context       what a stage gets: settings, records, shards, models
fingerprints  what a result depends on, as one hash
folder        the files of a run folder, and its lock
marks         done.json and started.json
recorded      the settings that a run's records were made with
swap          several stages' folders exchanged together
"""

from __future__ import annotations

from glore.pipeline.context import StageContext
from glore.pipeline.run import Stage, StagePlan, plan_stages, run_stages

__all__ = ["Stage", "StageContext", "StagePlan", "plan_stages", "run_stages"]
