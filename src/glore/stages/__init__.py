"""Training and evaluation as an ordered list of stages: `plan` lists them, and the other files
declare and run them.
"""

from __future__ import annotations

from glore.stages.evaluating import evaluation_options, read_inputs
from glore.stages.plan import build_stages

__all__ = ["build_stages", "evaluation_options", "read_inputs"]
