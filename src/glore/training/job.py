"""A training on several devices, as a job of its own: `launch` + `-m glore.training.job JOB TOKEN`
(docs/cluster.md).

The run stays one process. It writes the examples and settings to a file, starts the launcher
(`accelerate launch …`), shows the progress that the first process of the job prints, and takes the
report or the error that it leaves behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.config import TrainSettings
from glore.errors import ConfigError, GloreError, ModelError, RunError, says_out_of_memory, shown
from glore.files import replacing, split_lines
from glore.progress import Progress, SilentProgress
from glore.training.distributed import is_first
from glore.training.examples import LMExample, StepExample, TrainReport
from glore.training.job_owner import Owner, exclusive, still_owned
from glore.training.launch_command import launch_path, launch_words, no_launcher
from glore.training.memory_errors import memory_error
from glore.training.training_setup import TrainingSetup

__all__ = ["launched"]

Kind = Literal["causal", "steps"]
MARK = "@glore "
"""Begins a line of progress."""
_KILLED = re.compile(r"SIGKILL|exitcode *:? *-9\b")
"""What torchrun and accelerate say of a process that the system's memory killer ended."""


def launched(
    kind: Kind,
    base: str | Path,
    examples: Iterable[LMExample] | Iterable[StepExample],
    settings: TrainSettings,
    setup: TrainingSetup,
) -> TrainReport:
    """Carry a training out with `setup.launch`. Raises ConfigError (no such command), or what the
    job failed with.
    """
    folder = setup.work_dir / "job"
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner.me()
    with exclusive(folder, setup.progress):
        for old in ("report.json", "error.json"):
            (folder / old).unlink(missing_ok=True)
        with (folder / "examples.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(
                json.dumps(dataclasses.asdict(example), ensure_ascii=False) + "\n"
                for example in examples
            )
        job = {
            "kind": kind,
            "base": str(base),
            "settings": settings.model_dump(mode="json"),
            "setup": _plain(setup),
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
    """What tells that a job, or one of its processes, ran out of memory; none: nothing does."""
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


class _Printed:
    """Progress as lines for the process that launched this one."""

    def begin(self, what: str, total: int, unit: str) -> None:
        self._print({"begin": what, "total": total, "unit": unit})

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self._print({"advance": n, "tokens": tokens})

    def note(self, message: str) -> None:
        self._print({"note": message})

    def _print(self, event: Mapping[str, object]) -> None:
        print(MARK + json.dumps(event), flush=True)


def _plain(setup: TrainingSetup) -> dict[str, object]:
    """What goes into the job's file: all but who watches and the launcher."""
    return {
        "out_dir": str(setup.out_dir),
        "work_dir": str(setup.work_dir),
        "log_dir": None if setup.log_dir is None else str(setup.log_dir),
        "seed": setup.seed,
        "dtype": setup.dtype,
        "device": setup.device,
        "section": setup.section,
    }


def _carry_out(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    progress: Progress = _Printed() if is_first() else SilentProgress()
    paths = {
        key: Path(job["setup"][key])
        for key in ("out_dir", "work_dir", "log_dir")
        if job["setup"][key] is not None
    }
    setup = TrainingSetup(**{**job["setup"], **paths, "progress": progress})
    lines = split_lines((folder / "examples.jsonl").read_bytes().decode("utf-8"))
    examples = [json.loads(line) for line in lines if line]
    report = _train(
        job["kind"], job["base"], examples, TrainSettings.model_validate(job["settings"]), setup
    )
    if is_first():
        with replacing(folder / "report.json") as stream:
            stream.write(json.dumps(dataclasses.asdict(report)).encode())


def _train(
    kind: Kind,
    base: str,
    examples: list[dict[str, list[str]]],
    settings: TrainSettings,
    setup: TrainingSetup,
) -> TrainReport:
    from glore.training.finetune import train_causal_lm, train_step_classifier

    tuples = [{key: tuple(value) for key, value in example.items()} for example in examples]
    if kind == "causal":
        return train_causal_lm(
            base,
            [LMExample(prompt=e["prompt"], target=e["target"]) for e in tuples],
            settings,
            setup,
        )
    steps = [
        StepExample(
            e["prompt"], e["steps"], tuple(map(bool, e["labels"])), tuple(map(bool, e["kept"]))
        )
        for e in tuples
    ]
    return train_step_classifier(base, steps, settings, setup)


def main() -> None:
    """One process of a job."""
    folder = Path(sys.argv[1])
    if not still_owned(folder, sys.argv[2]):
        sys.exit("the run that launched this training is gone")
    try:
        _carry_out(folder)
    except GloreError as error:
        # Whichever process it is: where only one runs out of memory, the first may be another. The
        # one that fails first has the cause.
        said = json.dumps({"kind": type(error).__name__, "message": str(error)})
        with (
            contextlib.suppress(FileExistsError),
            (folder / "error.json").open("x", encoding="utf-8") as file,
        ):
            file.write(said)
        # The other processes may wait in a collective for ever: leave at once, and the launcher
        # ends them.
        os._exit(1)


if __name__ == "__main__":
    main()
