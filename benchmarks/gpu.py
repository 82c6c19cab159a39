"""On a GPU: correctness of the kernels, text equal to that of `generate`, and the speed of rollouts
against transformers and the card's limit.

    python -m benchmarks.gpu                     all sections (estimated: nine minutes on an H100)
    python -m benchmarks.gpu --only card,kernels,drawing,text-llama,backends,scores,step135
    python -m benchmarks.gpu --only card,rollouts135,step1100,rollouts1100
    python -m benchmarks.gpu --run RUN --only trained-text,trained-rollouts,trained-labels
    TRITON_INTERPRET=1 python -m benchmarks.gpu --dry    tries the script on a CPU, tiny shapes

Sections are independent: one that fails prints its traceback, and the others go on. Numbers go to
$OUT/gpu.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import gpu_checks, gpu_rates, gpu_trained
from benchmarks.gpu_shapes import Bench, architectures

SECTIONS: dict[str, Callable[[Bench], object]] = {
    "card": gpu_rates.card,
    "kernels": gpu_checks.kernels,
    "drawing": gpu_checks.drawing,
    **{
        f"text-{name}": functools.partial(gpu_checks.text, name=name)
        for name in ("135M", *architectures())
    },
    "backends": gpu_checks.backends,
    "scores": gpu_checks.scores,
    "step135": lambda bench: gpu_rates.step(bench, "135M"),
    "rollouts135": lambda bench: gpu_rates.rollouts(bench, "135M"),
    "step1100": lambda bench: gpu_rates.step(bench, "1.1B"),
    "rollouts1100": lambda bench: gpu_rates.rollouts(bench, "1.1B"),
}
OF_A_RUN: dict[str, Callable[[Bench, str], object]] = {
    "trained-text": gpu_trained.text,
    "trained-rollouts": gpu_trained.rollouts,
    "trained-labels": gpu_trained.labels,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="sections, separated by commas; all")
    parser.add_argument("--skip", default="", help="sections to leave out")
    parser.add_argument("--run", help="a finished run: also measure its student")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=540, help="no section begins later than this"
    )
    parser.add_argument(
        "--dry", action="store_true", help="tiny shapes on a CPU, in Triton's interpreter"
    )
    options = parser.parse_args()
    bench = Bench.of(options.dry, options.rounds)
    skipped = set(options.skip.split(","))
    results: dict[str, object] = {"device": bench.name, "torch": torch.__version__}
    begun = time.perf_counter()
    sections = dict(SECTIONS)
    if options.run:
        sections |= {
            name: functools.partial(section, run=options.run) for name, section in OF_A_RUN.items()
        }
    for name in options.only.split(",") if options.only else sections:
        if name in skipped:
            continue
        if time.perf_counter() - begun > options.seconds:
            print(f"\n## {name}: not begun, {options.seconds:.0f} s are over", flush=True)
            continue
        print(f"\n## {name}", flush=True)
        at = time.perf_counter()
        try:
            results[name] = sections[name](bench)
        except Exception:
            results[name] = {"failed": traceback.format_exc()}
            print(traceback.format_exc(), flush=True)
        bench.free()
        print(f"({name}: {time.perf_counter() - at:.0f} s)", flush=True)
        folder = Path(os.environ.get("OUT", "."))
        (folder / "gpu.json").write_text(
            json.dumps(results, indent=1, default=str), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
