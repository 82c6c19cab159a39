"""The process that runs reasoning-gym: JSON requests in, JSON answers out, one a line. It is
started with `-m`, never imported.

    {"name": …, "size": …, "seed": …, "config": {…}, "make": n} → {"items": […], "evaluates": …}
    {"index": 3, "question": "…", "answer": "…"} → {"score": 1.0}

The first request opens the data set and makes its first n items. The others score an answer to one
of its items. A failure is {"error": "…"}.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping

__all__ = ["main"]

_EVALUATES = re.compile(r"\b(?:parse_expr|sympify|eval|exec)\s*\(")


def main() -> None:
    # Text that the package prints must not be read as an answer.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    dataset = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if dataset is None:
                create = importlib.import_module("reasoning_gym").create_dataset
                settings = {"size": request["size"], "seed": request["seed"], **request["config"]}
                dataset = create(request["name"], **settings)
                reply = _made(dataset, request["make"])
            else:
                entry = dataset[request["index"]]
                if entry["question"] != request["question"]:
                    raise ValueError("the item has another question now")
                reply = {"score": float(dataset.score_answer(request["answer"], entry))}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=out, flush=True)


def _made(dataset: object, n: int) -> dict[str, object]:
    items = [_item(dataset[i]) for i in range(n)]  # type: ignore[index]
    try:
        source = inspect.getsource(sys.modules[type(dataset).__module__])
    except (OSError, TypeError, KeyError):
        source = ""
    return {"items": items, "evaluates": bool(_EVALUATES.search(source))}


def _item(entry: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {"question": entry["question"], "answer": entry["answer"]}
    metadata = entry.get("metadata")
    worked = metadata.get("answer_cot") if isinstance(metadata, Mapping) else None
    return {**found, "solution": worked} if isinstance(worked, str) and worked.strip() else found


if __name__ == "__main__":
    main()
