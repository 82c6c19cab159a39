"""Which device a setting names."""

from __future__ import annotations

import pytest
import torch

from glore.devices import pick_device, trains_on_cpu
from glore.errors import ConfigError


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or mps, got 'tpu'"):
        pick_device("tpu")


def test_an_apple_gpu_is_taken_if_asked_for_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings stay on the CPU. `auto` never takes it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device mps was asked for, but torch sees no Apple GPU"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (pick_device("mps"), pick_device("auto")) == ("mps", "cpu")
    assert trains_on_cpu("mps")
    assert trains_on_cpu("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not trains_on_cpu("auto")
