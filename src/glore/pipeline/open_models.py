"""The models that a stage has open: their backends are named, and all are closed when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from glore.progress import Progress

__all__ = ["M", "OpenModel", "OpenModels"]


class OpenModel(Protocol):
    """An engine or a scorer, as a stage opens it."""

    @property
    def backend(self) -> str:
        """What reads the model, in words."""
        ...

    @property
    def warning(self) -> str:
        """Why a slower backend is used, and what that costs; "" if the best one is used."""
        ...

    def close(self) -> None:
        """Free its memory."""
        ...


M = TypeVar("M", bound=OpenModel)


class OpenModels:
    """Open models by name. `stage` names the stage in errors; `warned` holds the models whose slow
    backend a stage before has warned of, and grows.
    """

    def __init__(
        self, stage: str, progress: Progress, warn: Callable[[str], None], warned: set[str]
    ) -> None:
        self.backends: dict[str, str] = {}
        """Model → what read it, also after it is closed."""
        self._stage, self._progress, self._warn, self._warned = stage, progress, warn, warned
        self._kept: dict[str, OpenModel] = {}
        self._stack = contextlib.ExitStack()

    def keep(self, opened: M, model: str) -> M:
        """Take over an open model, show its backend and return it. Raises ValueError if one of that
        name is open.
        """
        if model in self._kept:
            raise ValueError(f"stage {self._stage} has {model} open already; release it first")
        self._kept[model] = opened
        self._stack.callback(self.release, model)
        self._note_backend(model, opened)
        self._progress.note(f"{model}: {self.backends[model]}")
        return opened

    def release(self, model: str) -> None:
        """Close the model of that name. Does nothing if it is closed already."""
        opened = self._kept.pop(model, None)
        if opened is not None:
            try:
                self._note_backend(model, opened)  # a pool knows its workers' only now
            finally:
                opened.close()

    def close(self) -> None:
        """Close every model that is open still, also if closing one fails."""
        self._stack.close()

    def _note_backend(self, model: str, opened: OpenModel) -> None:
        self.backends[model] = opened.backend
        if opened.warning and model not in self._warned:
            self._warned.add(model)
            self._warn(f"{model}: {opened.warning}")
