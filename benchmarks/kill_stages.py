"""Is a run that is killed in every stage the same as one that is not?

    python benchmarks/kill_stages.py runs/quickstart runs/killed

Carries out the first run's settings again as the second, with SIGKILL at a random moment in each of its stages (drawn from the time
the stage took in the first run) and the same command again after it. Then every file of records, and every model, must have the same
bytes. Prints each kill; exits with 1 where something differs. Two runs on one machine with nothing else on it, or the times drift.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

KEPT = ("*.parquet", "*.safetensors", "tokenizer.json", "config.json")
STAGE = re.compile(r"stage \d+/\d+ (\w+): computed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="a finished run")
    parser.add_argument("killed", type=Path, help="the run folder to make, killed in every stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    reference, killed = arguments.reference.absolute(), arguments.killed.absolute()
    if killed.exists():
        parser.exit(2, f"{killed} is there already; name a new folder\n")
    seconds = {p.parent.name: json.loads(p.read_text())["seconds"] for p in sorted((reference / "stages").glob("*/done.json"))}
    rng = random.Random(arguments.seed)
    moments = {stage: rng.uniform(0, took) for stage, took in seconds.items()}
    command = [sys.executable, "-m", "glore", "run", str(reference / "config.yaml")]
    command += [f"runs_dir={killed.parent}", f"name={killed.name}"]
    n_kills = 0
    while one_try(command, moments):
        n_kills += 1
    print(f"killed {n_kills} times; stages that ended before their moment: {', '.join(moments) or 'none'}")
    different = differing(reference, killed)
    print("\n".join(different) or "all records and models have the same bytes")
    sys.exit(bool(different))


def one_try(command: list[str], moments: dict[str, float]) -> bool:
    """Run until a stage's moment (taken out of `moments`) comes: True; or to the end: False."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    timer: threading.Timer | None = None
    killed: list[str] = []
    for line in process.stdout:
        match = STAGE.match(line)
        if match is None:
            continue
        if timer is not None:
            timer.cancel()
        stage = match[1]
        if stage in moments and not killed:
            timer = threading.Timer(moments[stage], lambda stage=stage: (killed.append(stage), process.kill()))
            timer.start()
    code = process.wait()
    if timer is not None:
        timer.cancel()
    if killed:
        print(f"{killed[0]}: killed after {moments.pop(killed[0]):.1f} s", flush=True)
        return True
    if code:
        sys.exit(f"the run ended with {code}; see {command[-1]}")
    return False


def differing(reference: Path, killed: Path) -> list[str]:
    """Files of records and models that are not the same in both."""
    folders = [run / part for run in (reference, killed) for part in ("stages", "models")]
    paths = {p.relative_to(folder.parent) for folder in folders for pattern in KEPT for p in folder.rglob(pattern)}
    return [f"{p} differs" for p in sorted(paths) if not same(reference / p, killed / p)]


def same(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


if __name__ == "__main__":
    main()
