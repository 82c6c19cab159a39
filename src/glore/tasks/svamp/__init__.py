"""`svamp`: arithmetic word problems, with text to train a small base model from nothing."""

from __future__ import annotations

from glore.tasks.svamp.task import open_svamp

__all__ = ["open_svamp"]
