"""A policy on disk between two rounds: the model, for engines, and beside it what training goes on
with: the value and AdamW's moments. Numbers alone are written and read; nothing there is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.optim import AdamW

from glore.errors import ModelError
from glore.files import replacing_folder
from glore.models import load_causal_lm, load_tokenizer, save_model
from glore.training.ppo.policy import Policy
from glore.training.ppo.settings import PpoSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MODEL", "is_finite", "load_policy", "new_optimizer", "save_policy"]

MODEL, STATE = "model", "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def new_optimizer(policy: Policy, settings: PpoSettings) -> AdamW:
    """AdamW without decay: the model's weights in its first group, the value's in the second."""
    return AdamW(
        [
            {"params": list(policy.model.parameters()), "lr": settings.learning_rate},
            {"params": list(policy.value.parameters()), "lr": settings.value_learning_rate},
        ],
        weight_decay=0.0,
    )


def load_policy(
    folder: Path, settings: PpoSettings, device: str
) -> tuple[Policy, AdamW, PreTrainedTokenizerBase]:
    """The policy that `save_policy` wrote to `folder`, or a new one of the model in `folder`.
    Weights are float32. Raises ModelError.
    """
    has_state = (folder / STATE).is_file()
    where = folder / MODEL if has_state else folder
    model = load_causal_lm(where, "float32", device)
    model.config.use_cache = False
    policy = Policy(model, settings.temperature)
    optimizer = new_optimizer(policy, settings)
    if has_state:
        _read_state(folder / STATE, policy, optimizer)
    return policy, optimizer, load_tokenizer(where)


def save_policy(
    policy: Policy, optimizer: AdamW, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write `folder`, which is replaced whole if it exists. Raises ModelError."""
    from safetensors.torch import save_file

    tensors = {f"value.{name}": tensor for name, tensor in policy.value.state_dict().items()}
    for name, parameter in policy.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {f"{key}.{name}": state[key] for key in _MOMENTS if key in state}
    try:
        with replacing_folder(folder) as temporary:
            save_model(policy.model, tokenizer, temporary / MODEL, "")
            save_file(
                {name: t.detach().contiguous().cpu() for name, t in tensors.items()},
                str(temporary / STATE),
            )
    except OSError as error:
        raise ModelError(
            f"can't write the policy to {folder}: {error.strerror or error}; free some space, then "
            "run again"
        ) from error


def _read_state(path: Path, policy: Policy, optimizer: AdamW) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
        policy.value.load_state_dict(
            {name: tensors[f"value.{name}"] for name in policy.value.state_dict()}
        )
        for name, parameter in policy.named_parameters():
            found = {key: tensors.get(f"{key}.{name}") for key in _MOMENTS}
            if found["exp_avg"] is None:
                continue
            optimizer.state[parameter] = {
                # AdamW counts its steps on the CPU.
                key: value if key == "step" else value.to(parameter.device)
                for key, value in found.items()
                if value is not None
            }
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise ModelError(
            f"can't read {path}: {' '.join(str(error).split())[:160]}; delete the stage's folder, "
            "then run again"
        ) from error


def is_finite(policy: Policy) -> bool:
    """Whether all weights are finite."""
    return all(bool(torch.isfinite(p).all()) for p in policy.parameters())
