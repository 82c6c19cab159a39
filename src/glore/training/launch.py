"""Start a training on several devices as a job of its own, and wait for it (docs/cluster.md).

The run stays one process. It writes the examples and settings to a file, starts the launcher
(`accelerate launch …`) with `-m glore.training.job FOLDER TOKEN`, shows the progress that the first
process of the job prints, and returns the report or raises the error that the job leaves behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.config import TrainSettings
from glore.errors import ConfigError, ModelError, RunError, says_out_of_memory, shown
from glore.progress import Progress
from glore.prompts import ControlText
from glore.reward_models.layouts import note_of
from glore.step_head import BINARY, StepHead
from glore.step_layouts.parts import StepLayout
from glore.training.examples import LMExample, StepExample, TrainReport
from glore.training.job_owner import Owner, exclusive
from glore.training.launch_command import launch_path, launch_words, no_launcher
from glore.training.memory_errors import memory_error
from glore.training.pairs import PairExample
from glore.training.training_setup import TrainingSetup

__all__ = ["MARK", "Example", "Kind", "as_json", "launch_training"]

Kind = Literal["causal", "steps", "pairs"]
"""Whether a causal language model, a step classifier or a contrastive reward model is trained."""
Example = LMExample | StepExample | PairExample
MARK = "@glore "
"""Begins a line of progress."""
_KILLED = re.compile(r"SIGKILL|exitcode *:? *-9\b")
"""What torchrun and accelerate say of a process that the system killed for lack of memory."""


def launch_training(
    kind: Kind,
    base: str | Path,
    examples: Iterable[Example],
    settings: TrainSettings,
    setup: TrainingSetup,
    head: StepHead = BINARY,
    layout: StepLayout | None = None,
) -> TrainReport:
    """Train with the command `setup.launch`. `head` and `layout`: of a step classifier.

    Raises ConfigError for a command that does not exist, or the job's own error.
    """
    folder = setup.work_dir / "job"
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner.me()
    with exclusive(folder, setup.progress):
        for old in ("report.json", "error.json"):
            (folder / old).unlink(missing_ok=True)
        with (folder / "examples.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(
                json.dumps(as_json(example), ensure_ascii=False) + "\n" for example in examples
            )
        job = {
            "kind": kind,
            "base": str(base),
            "settings": settings.model_dump(mode="json"),
            "setup": _setup_fields(setup),
            "head": dataclasses.asdict(head),
            "layout": None if layout is None else json.loads(note_of(layout)),
        }
        (folder / "job.json").write_text(
            json.dumps({**job, "owner": dataclasses.asdict(owner)}), encoding="utf-8"
        )
    command = [
        *launch_words(setup.launch),
        "-m",
        "glore.training.job",
        str(folder.resolve()),
        owner.token,
    ]
    environment = {**os.environ, "PATH": launch_path()}
    last: deque[str] = deque(maxlen=60)
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
    except OSError as error:
        raise no_launcher(command[0], error.strerror or str(error)) from error
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    _show(json.loads(line.removeprefix(MARK)), setup.progress)
                elif line.strip():
                    last.append(line.strip())
        except BaseException:
            process.terminate()  # the launcher ends its processes
            raise
    return _outcome(folder, process.returncode, list(last), settings, setup)


def as_json(example: Example) -> dict[str, object]:
    """An example as JSON. `controls`: indexes of its prompt's segments that are control text."""
    controls = [i for i, s in enumerate(example.prompt) if isinstance(s, ControlText)]
    return {**dataclasses.asdict(example), **({"controls": controls} if controls else {})}


def _outcome(
    folder: Path,
    returncode: int,
    last: Sequence[str],
    settings: TrainSettings,
    setup: TrainingSetup,
) -> TrainReport:
    if (folder / "error.json").is_file():
        error = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        kinds = {kind.__name__: kind for kind in (ConfigError, ModelError, RunError)}
        raise kinds.get(error["kind"], ModelError)(error["message"])
    if returncode or not (folder / "report.json").is_file():
        log = folder / "output.log"
        log.write_text("\n".join(last) + "\n", encoding="utf-8")
        if (short := _memory_message(returncode, last)) is not None:
            raise memory_error(f"{short}; its last lines are in {log}", settings, setup)
        said = next((line for line in reversed(last) if "Error" in line), "")
        raise ModelError(
            f"the training job ended with code {returncode}: {shown(said, 300)}; its last lines "
            f"are in {log}"
        )
    return TrainReport(**json.loads((folder / "report.json").read_text(encoding="utf-8")))


def _memory_message(returncode: int, last: Sequence[str]) -> str | None:
    """Signs that a job, or one of its processes, ran out of memory; none: there are none."""
    if returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "the job was killed, as the system does where memory runs out"
    said = next((line for line in reversed(last) if says_out_of_memory(line)), None)
    killed = next((line for line in reversed(last) if _KILLED.search(line)), None)
    return said or (
        killed
        and f"a process of the job was killed, as the system does where memory runs out: {killed}"
    )


def _show(event: Mapping[str, object], progress: Progress) -> None:
    match event:
        case {"begin": str(what), "total": int(total), "unit": str(unit)}:
            progress.begin(what, total, unit)
        case {"advance": int(n), "tokens": int(tokens)}:
            progress.advance(n, tokens)
        case {"note": str(message)}:
            progress.note(message)


def _setup_fields(setup: TrainingSetup) -> dict[str, object]:
    """The setup as the job's file has it: without progress and launcher."""
    return {
        "out_dir": str(setup.out_dir),
        "work_dir": str(setup.work_dir),
        "log_dir": None if setup.log_dir is None else str(setup.log_dir),
        "trackers": list(setup.trackers),
        "seed": setup.seed,
        "dtype": setup.dtype,
        "device": setup.device,
        "section": setup.section,
        "about": list(setup.about),
        "notes": [list(note) for note in setup.notes],
    }
