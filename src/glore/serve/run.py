"""Opens a run's models and serves them until SIGTERM or Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from glore.config import RunConfig
from glore.errors import ConfigError, shown
from glore.models import load_tokenizer
from glore.refiner import Refiner
from glore.serve.app import create_app
from glore.serve.limits import Limits
from glore.serve.playground import Browsed
from glore.serve.served import Served
from glore.serve.tracing import set_up_tracing

__all__ = ["serve_run"]


def serve_run(
    config: RunConfig,
    *,
    host: str,
    port: int,
    limits: Limits,
    key: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve a finished run. Returns when a SIGTERM has been obeyed: no new connection is taken, and
    accepted requests are answered. `say` gets a line when models are loaded, and warnings.

    Raises ConfigError for an address that can't be had, or a package that tracing lacks, before a
    model is loaded; RunError or ModelError for a run that can't be served.
    """
    set_up_tracing()
    with _bound(host, port) as listener, Refiner.from_run(config.run_dir) as refiner:
        folder = config.run_dir / "models" / "student"
        served = Served.of(refiner, load_tokenizer(folder), config, _context(folder))
        app = create_app(served, limits, key, Browsed.of(config.run_dir))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=limits.drain_seconds,
                # Clients keep connections while they wait for something else. uvicorn's 5 seconds
                # close one in the moment in which it is used again.
                timeout_keep_alive=75,
                server_header=False,
            )
        )
        if key is None and host not in ("127.0.0.1", "::1", "localhost"):
            say(f"warning: {host} can be reached from elsewhere, and no API key is asked for")
        where = f"[{host}]" if ":" in host else host
        url = f"http://{where}:{listener.getsockname()[1]}/v1"
        say(
            f"serving {config.run_dir} at {url}, for people at {url.removesuffix('v1')}; Ctrl-C or "
            "SIGTERM ends it"
        )
        # The libraries and models are a million objects that stay to the end. Looking through them
        # for garbage takes seconds, several times after the last answer.
        gc.freeze()
        # uvicorn raises the signal again after it has drained; for SIGTERM that is the end we want.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)


def _context(folder: Path) -> int | None:
    """How many tokens the model in this folder is made for, if its config says."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    value = said.get("max_position_embeddings")
    return value if isinstance(value, int) and value > 0 else None


def _bound(host: str, port: int) -> contextlib.closing[socket.socket]:
    """A socket at this address that does not listen yet. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"can't serve at {shown(host)}, port {port}: {error.strerror or error}; give another "
            "--host or --port (0: any that is free)"
        ) from error
    return contextlib.closing(listener)
