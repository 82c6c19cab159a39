"""`svamp`: arithmetic word problems, with text to train a small base model from nothing."""

from __future__ import annotations

from glore.tasks.svamp.task import load_svamp

__all__ = ["load_svamp"]
