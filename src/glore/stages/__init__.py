"""Training and evaluation as an ordered list of stages: `plan` lists them, the other files carry
them out.
"""

from __future__ import annotations

from glore.stages.plan import build_stages, evaluation_options, read_inputs

__all__ = ["build_stages", "evaluation_options", "read_inputs"]
