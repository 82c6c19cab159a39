"""A completions server for tests: a tiny random model behind OpenAI's HTTP interface, with faults
on demand.

    python completions_server.py FOLDER NAME [KEY]

serves the model FOLDER under that name, or, where NAME is empty, every model in FOLDER as it
appears, and prints its port. `POST /faults` with a JSON list sets what goes wrong at the *first*
try of every request, chosen in turn: a status (429, 500, 400, …), `drop` (the connection breaks in
the middle), `slow`, `malformed`, `short`, `abort`, `none`; or at every try: `huge`, `silent`
(neither log-probabilities nor the reason of a stop), `few` (too few log-probabilities). `GET /log`
gives the bodies received so far, and how many were being answered at once at most.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import glore.tokenization
from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.protocol import Request, SamplingParams

LASTING = ("huge", "silent", "few")
IDS = "\0ids "
"""Begins a segment that holds token ids."""
encode_text = glore.tokenization.encode_many


def encode(tokenizer: object, prompts: list[tuple[str, ...]], bos: bool = True) -> list[list[int]]:
    """As `encode_many`, and token ids as they are."""
    return [
        [int(i) for i in p[0].removeprefix(IDS).split()]
        if p and p[0].startswith(IDS)
        else encode_text(tokenizer, [p], bos)[0]
        for p in prompts
    ]


glore.tokenization.encode_many = encode


class State:
    def __init__(self, folder: Path, name: str, key: str) -> None:
        self.folder, self.name, self.key = folder, name, key
        self.engines: dict[tuple[Path, int], TorchEngine] = {}
        self.drawing, self.changing = threading.Lock(), threading.Lock()
        self.faults: list[object] = []
        self.seen: dict[str, object] = {}
        self.log: list[dict[str, object]] = []
        self.open: list[socket.socket] = []
        self.most_open = 0
        if name:
            self.engine(name)

    def names(self) -> list[str]:
        """The models there are now."""
        return (
            [self.name]
            if self.name
            else sorted(p.parent.name for p in self.folder.glob("[!.]*/config.json"))
        )

    def engine(self, name: str) -> TorchEngine:
        """An engine over what the model's folder holds now."""
        folder = self.folder if self.name else self.folder / name
        key = (folder, (folder / "model.safetensors").stat().st_mtime_ns)
        if key not in self.engines:
            self.engines[key] = TorchEngine(folder, EngineSettings(device="cpu", max_rows=16))
        return self.engines[key]

    def fault(self, body: str) -> object:
        """What goes wrong with this request: something at its first try only, unless it is a status
        below 429.
        """
        with self.changing:
            if not self.faults:
                return "none"
            first = body not in self.seen
            fault = self.seen.setdefault(body, self.faults[len(self.seen) % len(self.faults)])
            return (
                fault
                if first or (isinstance(fault, int) and fault < 429) or fault in LASTING
                else "none"
            )

    def draw(self, body: dict[str, object]) -> list[dict[str, object]]:
        prompt, n = body["prompt"], body.get("n", 1)
        text = prompt if isinstance(prompt, str) else IDS + " ".join(map(str, prompt))
        params = SamplingParams(
            *(body["temperature"], body["top_p"], max(0, body.get("top_k", 0)), body["max_tokens"]),
            *(body.get("stop", ""), "logprobs" in body),
        )
        with self.drawing:
            engine = self.engine(body["model"])
            (result,) = engine.run(
                [Request("r", (text,), tuple(body["seed"] + i for i in range(n)), params)]
            )
        return [
            {
                "index": i,
                "text": c.text,
                "finish_reason": "length" if c.stop == "length" else "stop",
                "n": c.n_tokens,
            }
            | ({"logprobs": {"token_logprobs": c.logprobs}} if c.logprobs else {})
            | (
                {"stop_reason": body["stop"] if c.stop == "stop" else None}
                if "stop" in body
                else {}
            )
            for i, c in enumerate(result.completions)
        ]


def hung_up(connection: socket.socket) -> bool:
    """Has the client given the call up, which is still being answered here?"""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, data: object, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def allowed(self) -> bool:
        if not self.state.key or self.headers.get("Authorization") == f"Bearer {self.state.key}":
            return True
        self.reply(401, {"error": {"message": "wrong key"}})
        return False

    def do_GET(self) -> None:  # the name is http.server's
        if self.path == "/log":
            self.reply(200, {"log": self.state.log, "most_open": self.state.most_open})
        elif self.path != "/v1/models":
            self.reply(404, {"detail": "Not Found"})
        elif self.allowed():
            self.reply(200, {"data": [{"id": name} for name in self.state.names()]})

    def do_POST(self) -> None:  # the name is http.server's
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/faults":
            self.state.faults, self.state.seen, self.state.log, self.state.most_open = (
                json.loads(body),
                {},
                [],
                0,
            )
            self.reply(200, {})
        elif self.path != "/v1/completions":
            self.reply(404, {"detail": "Not Found"})
        elif self.allowed():
            with self.state.changing:
                self.state.open.append(self.connection)
                self.state.most_open = max(
                    self.state.most_open, sum(not hung_up(c) for c in self.state.open)
                )
            try:
                self.complete(body)
            finally:
                with self.state.changing:
                    self.state.open.remove(self.connection)

    def complete(self, body: str) -> None:
        data = json.loads(body)
        self.state.log.append(data)
        if data["model"] not in self.state.names():
            self.reply(404, {"error": {"message": f"The model `{data['model']}` does not exist."}})
            return
        fault = self.state.fault(body)
        if isinstance(fault, int):
            self.reply(
                fault, {"error": {"message": f"fault {fault}\n on demand"}}, {"Retry-After": "0"}
            )
            return
        if fault == "slow":
            time.sleep(1.5)
        if fault == "huge":
            self.reply(200, b" " * (4 << 20))
            return
        choices = self.state.draw(data)
        n_tokens = sum(c.pop("n") for c in choices)
        answer = {"choices": choices[::-1], "usage": {"completion_tokens": n_tokens}}
        if fault == "drop":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif fault == "malformed":
            self.reply(200, b"<html>it works</html>")
        elif fault == "short":
            self.reply(200, {"choices": []})
        elif fault == "silent":
            hidden = [
                {k: v for k, v in c.items() if k not in ("logprobs", "stop_reason")}
                for c in choices
            ]
            self.reply(200, {**answer, "choices": hidden})
        elif fault == "few":
            self.reply(
                200,
                {
                    **answer,
                    "choices": [
                        {**c, "logprobs": {"content": [{"logprob": -1.0}]}} for c in choices
                    ],
                },
            )
        elif fault == "abort":
            self.reply(200, {"choices": [{**c, "finish_reason": "abort"} for c in choices]})
        else:
            self.reply(200, answer)


def main() -> None:
    folder, name, key = sys.argv[1], sys.argv[2], (sys.argv[3] if len(sys.argv) > 3 else "")
    Handler.state = State(Path(folder), name, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
