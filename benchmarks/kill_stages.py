"""Checks that a run that is killed many times equals a run that is never killed.

    python benchmarks/kill_stages.py benchmarks/kill.yaml runs/kills --kills 30 \\
        "launch=accelerate launch --cpu --num_processes 2 --num_machines 1 --main_process_port 0
        --mixed_precision no --dynamo_backend no"

Runs the recipe once without a kill (`FOLDER/whole`, reused if it exists), then as
`FOLDER/killed-1`, … with `--kills` kills by SIGKILL at random moments: each stage in turn, at a
moment drawn from the time it took, and more where most time is spent. Every second kill hits the
run alone and leaves its launched processes behind; the others hit all its processes at once. After
each kill the same command runs again. At the end, every file of records and every model must have
the same bytes. Prints each kill, and exits with 1 if anything differs. Run it on an idle machine:
otherwise times drift and moments are missed (another run folder is started for those).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

KEPT = ("*.parquet", "*.safetensors", "tokenizer.json", "config.json", "glore-digests.json")
STAGE = re.compile(r"stage \d+/\d+ (\w+): (computed|resumed|reused)")
Moments = dict[str, collections.deque[float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path, help="the run folders are made here")
    parser.add_argument("overrides", nargs="*", metavar="KEY.PATH=VALUE")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_intermixed_args()
    if any(arguments.folder.glob("killed-*")):
        parser.exit(2, f"{arguments.folder} holds killed runs already; name a new folder\n")
    command = [
        sys.executable,
        "-m",
        "glore",
        "run",
        str(arguments.recipe),
        *arguments.overrides,
        f"runs_dir={arguments.folder.absolute()}",
    ]
    begin = time.monotonic()
    if attempt([*command, "name=whole"], {}, alone=False) is not None:
        sys.exit("the run without a kill was killed")
    whole = arguments.folder / "whole"
    print(f"whole run: {time.monotonic() - begin:.0f} s", flush=True)
    moments = drawn(whole, arguments.kills, random.Random(arguments.seed))
    killed: list[str] = []
    runs: list[Path] = []
    while len(killed) < arguments.kills and any(moments.values()):
        runs.append(arguments.folder / f"killed-{len(runs) + 1}")
        while len(killed) < arguments.kills:
            stage = attempt(
                [*command, f"name={runs[-1].name}"], moments, alone=len(killed) % 2 == 0
            )
            if stage is None:
                break
            killed.append(stage)
        else:
            attempt([*command, f"name={runs[-1].name}"], {}, alone=False)
    counts = collections.Counter(killed)
    print(
        f"{len(killed)} kills in {time.monotonic() - begin:.0f} s: "
        f"{', '.join(f'{s} {n}' for s, n in sorted(counts.items()))}"
    )
    different = [line for run in runs for line in differing(whole, run)]
    print(
        "\n".join(different)
        or f"all records and models of {len(runs)} killed runs have the same bytes"
    )
    sys.exit(bool(different))


def drawn(whole: Path, n: int, rng: random.Random) -> Moments:
    """Stage → moments after its start: one for each stage, the others in proportion to the stages'
    times.
    """
    marks = [
        json.loads(path.read_text()) for path in sorted((whole / "stages").glob("*/done.json"))
    ]
    seconds = {mark["stage"]: mark["seconds"] for mark in marks}
    stages = rng.sample(sorted(seconds), min(n, len(seconds)))
    stages += rng.choices(sorted(seconds), [seconds[s] for s in sorted(seconds)], k=n - len(stages))
    moments: Moments = collections.defaultdict(collections.deque)
    for stage in stages:
        moments[stage].append(rng.uniform(0, seconds[stage]))
    return moments


def attempt(command: list[str], moments: Moments, alone: bool) -> str | None:
    """Run until the next moment of a stage, remove that moment, and return the stage. None: the run
    ended.
    """
    killed: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        timers: list[threading.Timer] = []
        planned: tuple[str, float] | None = None

        def kill(stage: str) -> None:
            killed.append(stage)
            with contextlib.suppress(ProcessLookupError):
                process.kill() if alone else os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            # What is left behind may hold the pipe open for a moment; its last words are not waited
            # for.

        last: collections.deque[str] = collections.deque(maxlen=5)
        for line in process.stdout:
            last.append(line)
            match = STAGE.search(line)
            if match is None or killed:
                continue
            if planned is not None and not stop(timers, killed):
                moments[planned[0]].append(
                    planned[1] * 0.7
                )  # missed: a little earlier, in another run
            planned = None
            if match[2] != "reused" and moments.get(match[1]) and not killed:
                planned = match[1], moments[match[1]].popleft()
                timers.append(threading.Timer(planned[1], kill, [match[1]]))
                timers[-1].start()
        stop(timers, killed)
        code = process.wait()
    if killed and planned is not None:
        who = "the run alone" if alone else "all processes"
        print(f"{killed[0]}: {who} killed after {planned[1]:.2f} s", flush=True)
        return killed[0]
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n{''.join(last)}")
    return None


def stop(timers: Iterable[threading.Timer], killed: list[str]) -> bool:
    """Stop the timers. True if one had already fired."""
    for timer in timers:
        timer.cancel()
        timer.join()
    return bool(killed)


def differing(whole: Path, killed: Path) -> list[str]:
    """Files of records and models that differ between two runs."""
    folders = [run / part for run in (whole, killed) for part in ("stages", "models")]
    paths = {
        p.relative_to(folder.parent)
        for folder in folders
        for pattern in KEPT
        for p in folder.rglob(pattern)
    }
    return [f"{killed.name}/{p} differs" for p in sorted(paths) if not same(whole / p, killed / p)]


def same(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


if __name__ == "__main__":
    main()
