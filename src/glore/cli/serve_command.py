"""What `glore serve` does before the server starts: the extra, the key, the limits."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from glore.errors import ConfigError

if TYPE_CHECKING:
    from glore.config import RunConfig
    from glore.serve.limits import Limits

__all__ = ["check_extra", "serve"]

NEEDED = ("fastapi", "uvicorn")


def check_extra() -> None:
    """Raises ConfigError where a package of the extra `serve` is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"glore serve needs {' and '.join(missing)}; install the extra: pip install "
            "'glore[serve]'"
        )


def serve(
    config: RunConfig,
    *,
    host: str,
    port: int,
    key_file: Path | None,
    limits: Limits,
    say: Callable[[str], None],
) -> None:
    """Serve a run until it is told to end. Raises ConfigError for a missing package or a bad key,
    before a model is loaded.
    """
    check_extra()
    from glore.serve.keys import read_key

    key = read_key(key_file)
    from glore.serve.run import serve_run

    serve_run(config, host=host, port=port, limits=limits, key=key, say=say)
