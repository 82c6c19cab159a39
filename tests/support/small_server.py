"""`serve_run` with scripted models, which need a second: `python small_server.py FOLDER PORT`."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import glore.serve.run
from glore.config import RunConfig
from glore.refiner import RefineOptions, Refiner
from glore.serve.limits import Limits
from support.fakes import FunctionEngine
from support.tiny_models import tiny_tokenizer


def slow(request: object, seed: int) -> str:
    print("drawing", flush=True)
    time.sleep(1)
    return "#### 1"


class Scores:
    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        return [(0.5,) * len(steps) for _, steps in items]


class SmallRefiner(Refiner):
    @classmethod
    def from_run(cls, path: object, engine: object = None) -> Refiner:
        engines = FunctionEngine(slow), FunctionEngine(slow)
        return cls(*engines, Scores(), Scores(), RefineOptions())


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    (folder / "small" / "models" / "student").mkdir(parents=True)
    (folder / "small" / "models" / "student" / "config.json").write_text("{}")
    glore.serve.run.Refiner = SmallRefiner
    glore.serve.run.load_tokenizer = lambda path: tiny_tokenizer()
    before = len(gc.get_objects())
    try:
        glore.serve.run.serve_run(
            RunConfig(name="small", runs_dir=str(folder)),
            host="127.0.0.1",
            port=port,
            limits=Limits(),
            key=None,
            say=lambda line: print(line, flush=True),
        )
    finally:
        print(f"garbage is looked for in {len(gc.get_objects())} of {before} objects", flush=True)
