"""Counts of a server's work, as text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections.abc import Mapping

__all__ = ["Metrics"]

HELP = {
    "glore_requests_total": "Answered HTTP requests by route and status.",
    "glore_prompt_tokens_total": "Tokens of prompts, by model.",
    "glore_completion_tokens_total": "Tokens sampled, by model.",
    "glore_batches_total": "Batches given to the models.",
    "glore_disconnected_total": "Requests whose client went away before its answer.",
    "glore_request_seconds_sum": "Seconds from a request to its answer, added up, by route.",
    "glore_request_seconds_count": "Requests in that sum, by route.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters by name and labels. Labels have few values: never a client's text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Labels], float] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Count `value` more. Raises KeyError for a name without a help text."""
        HELP[name]
        with self._lock:
            key = name, tuple(sorted(labels.items()))
            self._counts[key] = self._counts.get(key, 0) + value

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All counters, and these gauges: name → (help, value)."""
        with self._lock:
            counts = sorted(self._counts.items())
        lines = []
        for name, what in HELP.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} counter"]
            for (of, labels), value in counts:
                if of == name:
                    inside = ",".join(f'{key}="{text}"' for key, text in labels)
                    lines.append(
                        f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}"
                    )
        for name, (what, value) in gauges.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name} {value:.10g}"]
        return "\n".join(lines) + "\n"
