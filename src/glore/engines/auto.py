"""`engine.kind=auto`: vLLM for a large model on a GPU where it is installed, else `torch`.

The order of the questions is that of their cost: a package is looked up, then torch is asked for a
GPU, then the headers of the weights are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from glore.adapter_folder import adapter_base, is_own_adapter
from glore.config import AutoEngineSettings, ChosenEngine, EngineSettings
from glore.config.plugins import is_installed
from glore.errors import ConfigError, shown

__all__ = ["LARGE", "as_kind", "best_kind", "chosen_for"]

LARGE = 1_000_000_000
"""Weights from which `auto` takes vLLM. vLLM starts anew for each stage that draws, twelve times in
the tiny run that was measured, at some 30 s each. At 135M weights, in which `torch` draws 133,000
tokens/s or more on an H200, that is more than most stages take. Completions of `torch` are also
reproducible, which vLLM's are not. docs/engines.md has the numbers.
"""


def chosen_for(model_path: str | Path, settings: EngineSettings) -> EngineSettings:
    """The settings with which to open the model at `model_path`: those given, or those of the kind
    that `auto` chooses for it. Raises ConfigError, ModelError.
    """
    if not isinstance(settings, AutoEngineSettings):
        return settings
    return as_kind(settings, *best_kind(settings, lambda: _n_weights(model_path))).settings


def best_kind(settings: AutoEngineSettings, n_weights: Callable[[], int | None]) -> tuple[str, str]:
    """The kind of engine for a model of that many weights (None: not known) on this machine, and
    why.
    """
    if not is_installed("vllm"):
        return "torch", "vLLM is not installed"
    if not _is_on_gpu(settings.device):
        return "torch", "the model is not on a GPU with CUDA"
    n = n_weights()
    if n is None:
        return "vllm", "it is installed, and the size of the model, on a GPU, is not known yet"
    size = f"the model, on a GPU, has {_short(n)} weights"
    if n < LARGE:
        return "torch", f"{size}, fewer than {_short(LARGE)}"
    return "vllm", f"it is installed, and {size}"


def as_kind(settings: AutoEngineSettings, kind: str, why: str) -> ChosenEngine:
    """These settings as those of an engine of this kind. Raises ConfigError for an option that it
    doesn't have, unless it has its default.
    """
    fields = type(settings).model_fields
    made = settings.kinds.class_for({"kind": kind})
    given = {name: getattr(settings, name) for name in fields if name != "kind"}
    for name in given.keys() - made.model_fields.keys():
        value = given.pop(name)
        if value != fields[name].default:
            others = " or ".join(
                str(other.model_fields["kind"].default)
                for other in settings.kinds.builtin
                if name in other.model_fields and other is not type(settings)
            )
            raise ConfigError(
                f"engine.{name}: {shown(value)} is for engines of kind {others}, and "
                f"engine.kind=auto chooses {kind} here, since {why}; remove it, or set "
                f"engine.kind={others}"
            )
    return ChosenEngine(EngineSettings.model_validate({"kind": kind, **given}), why)


def _short(n: int) -> str:
    """135M, 7.24B."""
    return f"{n / 1e6:.3g}M" if n < 1e9 - 5e5 else f"{n / 1e9:.3g}B"


def _is_on_gpu(device: str) -> bool:
    """Whether a model is put on a GPU with CUDA. A device that is absent is reported later."""
    if device not in ("auto", "cuda"):
        return False
    import torch

    return torch.cuda.is_available()


def _n_weights(model_path: str | Path) -> int:
    """Numbers in the files of a model; of its base for an adapter. Raises ModelError."""
    from glore.model_folder import open_folder
    from glore.model_weights import weight_headers

    if is_own_adapter(Path(model_path)):
        return _n_weights(adapter_base(Path(model_path)))
    found = open_folder(model_path, "causal language model")
    headers = weight_headers(found, f"can't load {shown(str(model_path))}")
    return sum(math.prod(shape) for _, shape in headers.values())
