"""The worker process of `glore.tasks.grading.latex`: JSON questions in, one verdict a line out. It
is started with `-m`, never imported.

It imports only the comparison of glore, so it starts in well under a second. Before every question
it asks the kernel to kill it after the limit plus a second, so a killed parent leaves no process
running.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import signal
import sys

from glore.tasks.grading.latex_compare import compare

_ENDS_IN_LETTER = re.compile(r"[0-9}\s][A-Za-z]\s*$")
_THOUSANDS_COMMA = re.compile(r"(?<=[0-9])\{,\}(?=[0-9]{3}(?![0-9]))")
_SIGNS = str.maketrans(
    {
        "−": "-",
        "∅": r"\emptyset ",
        "∞": r"\infty ",
        "∈": r"\in ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "π": r"\pi ",
        "×": r"\times ",
    }
    | {
        "·": r"\cdot ",
        "÷": r"\div ",
        "≠": r"\ne ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "ℝ": r"\mathbb{R}",
        "±": r"\pm ",
        "θ": r"\theta ",
    }
)
_OTHER_NAMES = {
    "varnothing": r"\emptyset ",
    "O": r"\emptyset ",
    "imath": " i ",
    "not=": r"\ne ",
    "not =": r"\ne ",
}
_OTHER_NAME = re.compile(r"\\(varnothing|O|imath|not ?=)(?![A-Za-z])")
_ABOUT = re.compile(r"\s*(?:\\(?:approx|simeq)(?![A-Za-z])|[≈~])\s*")
_ROOT = re.compile(r"√\s*(?:\(([0-9]+)\)|([0-9]+))")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])([A-Za-z]?)i(?![A-Za-z])")


def main() -> None:
    limit_seconds, memory_mib = float(sys.argv[1]), int(sys.argv[2])
    _limit_memory(memory_mib)
    logging.disable(logging.CRITICAL)
    # Text that a library prints must not be read as a verdict.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _verdict("x + 1", "x + 2")  # imports and compiles before the time limit starts
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, limit_seconds + 1)
        verdict = _verdict(question["gold"], question["found"])
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(verdict, file=out, flush=True)


def _limit_memory(memory_mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this system; the time limit still holds


def _verdict(gold: str, found: str) -> str:
    """The verdict on two answers. Symmetric."""
    gold, found = _normalised(gold), _normalised(found)
    verdicts = []
    try:
        for without_units in (False, True):
            texts = [_without_units(text) if without_units else text for text in (gold, found)]
            for one, other in itertools.product(*map(_parsed, texts)):
                verdict = compare(one, other, *texts)
                if (
                    verdict == "right"
                    and without_units
                    and (_ENDS_IN_LETTER.search(gold) or _ENDS_IN_LETTER.search(found))
                ):
                    verdict = "unknown"  # units taken off, math-verify reads `2 - 3d` as `2 - 3`
                verdicts.append(verdict)
            if "right" in verdicts:
                return "right"
    except (Exception, RecursionError, MemoryError):
        return "unknown"
    return "wrong" if verdicts and "unknown" not in verdicts else "unknown"


def _without_units(text: str) -> str:
    from math_verify.parser import NormalizationConfig, normalize_latex

    return str(normalize_latex(text, NormalizationConfig(units=True, boxed="none")))


def _parsed(text: str) -> list[object]:
    """The formulas in a text, parsed as LaTeX only: by default, math-verify falls back to the last
    number of a text that it can't parse.
    """
    from math_verify.parser import LatexExtractionConfig, NormalizationConfig, parse

    # One configuration for both readings: the library caches only the patterns of the last one, and
    # compiling them is slow.
    normal = NormalizationConfig(units=False, malformed_operators=True, nits=True)
    config = [LatexExtractionConfig(normalization_config=normal)]
    parsed: list[object] = parse(
        f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed


def _normalised(text: str) -> str:
    text = text[about.end() :] if (about := _ABOUT.match(text)) else text
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text.strip())
    text = _OTHER_NAME.sub(lambda m: _OTHER_NAMES[m[1]], text.translate(_SIGNS))
    if "," not in text:
        text = text.replace(";", ",")  # `[1; 2]`
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            text = text[len(left) : -len(right)].strip()
    # The library reads `3{,}500` as a list.
    text = _THOUSANDS_COMMA.sub("", text)
    # It reads the i of `2i` and of `2 i` as two symbols.
    return _IMAGINARY.sub(r"\1 i", text.removesuffix("."))


if __name__ == "__main__":
    main()
