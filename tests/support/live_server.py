"""An ASGI application behind uvicorn in a thread, at a port of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn


@contextlib.contextmanager
def live(app: object) -> Iterator[str]:
    """Serve until the block ends, then drain. Gives the server's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=20)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not end"


def until(holds: object, seconds: float = 30) -> None:
    """Wait until `holds()` is true. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator] # a function
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
