"""The command `glore`."""

from __future__ import annotations

from glore.cli.app import app, main

__all__ = ["app", "main"]
