"""GLoRe: make a language model better at reasoning with nothing but checkable final answers.

    from glore import Refiner, load_config, run

    run_dir = run(load_config("recipes/quickstart.yaml"))
    refinement = Refiner.from_run(run_dir)("Ann has 3 apples. Bob has twice as many. How many do
    they have together?") print(refinement.draft, refinement.marked_step,
    refinement.candidates[refinement.chosen])

Names are imported at first use, so that `import glore` costs nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glore.config import RunConfig, load_config
    from glore.errors import ConfigError, DataError, EngineError, GloreError, ModelError, RunError
    from glore.formats import LabelledSolution, read_solutions, write_solutions
    from glore.progress import Progress, SilentProgress, TerminalProgress
    from glore.records import (
        PrefixTrials,
        Problem,
        Refinement,
        RefinementPair,
        Solution,
        StepLabels,
        StepScores,
        read_records,
        write_records,
    )
    from glore.refiner import Refiner
    from glore.reward_models.export import encode_solutions, export_reward_model
    from glore.reward_models.open import open_reward_model
    from glore.rl_rewards.function import reward_function

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "GloreError",
    "LabelledSolution",
    "ModelError",
    "PrefixTrials",
    "Problem",
    "Progress",
    "Refinement",
    "RefinementPair",
    "Refiner",
    "RunConfig",
    "RunError",
    "SilentProgress",
    "Solution",
    "StepLabels",
    "StepScores",
    "TerminalProgress",
    "encode_solutions",
    "export_reward_model",
    "load_config",
    "open_reward_model",
    "read_records",
    "read_solutions",
    "reward_function",
    "run",
    "write_records",
    "write_solutions",
]

_HOMES = {
    "glore.config": ("RunConfig", "load_config"),
    "glore.errors": (
        "ConfigError",
        "DataError",
        "EngineError",
        "GloreError",
        "ModelError",
        "RunError",
    ),
    "glore.formats": ("LabelledSolution", "read_solutions", "write_solutions"),
    "glore.progress": ("Progress", "SilentProgress", "TerminalProgress"),
    "glore.records": (
        "PrefixTrials",
        "Problem",
        "Refinement",
        "RefinementPair",
        "Solution",
        "StepLabels",
        "StepScores",
        "read_records",
        "write_records",
    ),
    "glore.refiner": ("Refiner",),
    "glore.reward_models.export": ("encode_solutions", "export_reward_model"),
    "glore.reward_models.open": ("open_reward_model",),
    "glore.rl_rewards.function": ("reward_function",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def run(
    config: RunConfig,
    until: str | None = None,
    progress: Progress | None = None,
    redo: bool = False,
) -> Path:
    """Run a recipe's stages, up to and including `until`, and return the run folder.

    What fits is reused, so calling it again goes on where the last call stopped; `redo` replaces
    what was computed there under other settings. `progress`: none is silent. Raises GloreError.
    """
    from glore.pipeline import run_stages
    from glore.stages import build_stages

    run_stages(build_stages(config), config, until=until, progress=progress, redo=redo)
    return config.run_dir


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'glore' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
