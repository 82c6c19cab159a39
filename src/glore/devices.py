"""The device that a setting names, and what it computes."""

from __future__ import annotations

from glore.errors import ConfigError, shown

__all__ = ["computes_bfloat16", "pick_device", "trains_on_cpu"]


def pick_device(name: str) -> str:
    """`auto` → cuda when there is one, else cpu. Raises ConfigError for a device that is absent."""
    import torch

    if name not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda or mps, got {shown(name)}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "device mps was asked for, but torch sees no Apple GPU here; use device=auto or cpu"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device cuda was asked for, but torch sees no GPU here; use device=auto or cpu"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def trains_on_cpu(name: str) -> bool:
    """Whether trainings run on the CPU with this setting: everywhere but on a GPU with CUDA.

    Raises ConfigError for a device that is absent.
    """
    return pick_device(name) != "cuda"


def computes_bfloat16(device: str) -> bool:
    """True if the device has bfloat16 instructions. A CPU without them emulates them, and is many
    times slower than in float32.
    """
    import torch

    return device != "cpu" or any(
        has and name.endswith("bf16") for name, has in torch.cpu.get_capabilities().items()
    )
