"""A training on several devices, as a job of its own: `launch` + `-m glore.training.job JOB` (docs/cluster.md).

The run stays one process. It writes the examples and settings to a file, starts the launcher (`accelerate launch …`), shows the
progress that the first process of the job prints, and takes the report or the error that it leaves behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from glore.config import TrainSettings
from glore.errors import ConfigError, GloreError, ModelError, shown
from glore.progress import Progress, SilentProgress
from glore.training.distributed import is_first
from glore.training.examples import LMExample, StepExample, TrainReport

__all__ = ["Job", "launched"]

Kind = Literal["causal", "steps"]
MARK = "@glore "
"""Begins a line of progress."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What `train_causal_lm` and `train_step_classifier` are given, but for the examples."""

    kind: Kind
    base: str
    settings: TrainSettings
    out_dir: str
    seed: int
    work_dir: str
    dtype: str
    device: str
    log_dir: str | None


def launched(launch: str, job: Job, examples: Iterable[LMExample] | Iterable[StepExample], progress: Progress) -> TrainReport:
    """Carry the job out with this launcher. Raises ConfigError (no such command), or what the job failed with."""
    folder = Path(job.work_dir) / "job"
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("report.json", "error.json"):
        (folder / old).unlink(missing_ok=True)
    with (folder / "examples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(example), ensure_ascii=False) + "\n" for example in examples)
    plain = {**{f.name: getattr(job, f.name) for f in dataclasses.fields(job)}, "settings": job.settings.model_dump(mode="json")}
    (folder / "job.json").write_text(json.dumps(plain), encoding="utf-8")
    command = [*shlex.split(launch), "-m", "glore.training.job", str(folder.resolve())]
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))}
    last: deque[str] = deque(maxlen=20)
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", env=environment
        )
    except OSError as error:
        raise ConfigError(f"launch: can't start {shown(command[0])}: {error.strerror}; see docs/cluster.md for launch commands") from error
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    _show(json.loads(line.removeprefix(MARK)), progress)
                elif line.strip():
                    last.append(line.strip())
        except BaseException:
            process.terminate()  # the launcher ends its processes
            raise
    return _outcome(folder, process.returncode, last)


def _outcome(folder: Path, returncode: int, last: Iterable[str]) -> TrainReport:
    if (folder / "error.json").is_file():
        error = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        kinds = {kind.__name__: kind for kind in (ConfigError, ModelError)}
        raise kinds.get(error["kind"], ModelError)(error["message"])
    if returncode or not (folder / "report.json").is_file():
        log = folder / "output.log"
        log.write_text("\n".join(last) + "\n", encoding="utf-8")
        said = next((line for line in reversed(list(last)) if "Error" in line), "")
        raise ModelError(f"the training job ended with code {returncode}: {shown(said, 300)}; its last lines are in {log}")
    return TrainReport(**json.loads((folder / "report.json").read_text(encoding="utf-8")))


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


def _carry_out(folder: Path) -> None:
    plain = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    job = Job(**{**plain, "settings": TrainSettings.model_validate(plain["settings"])})
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    progress: Progress = _Printed() if is_first() else SilentProgress()
    report = _train(job, [json.loads(line) for line in lines], progress)
    if is_first():
        temporary = folder / "report.tmp"
        temporary.write_text(json.dumps(dataclasses.asdict(report)), encoding="utf-8")
        temporary.replace(folder / "report.json")


def _train(job: Job, examples: list[dict[str, list[str]]], progress: Progress) -> TrainReport:
    from glore.training.causal import train_causal_lm
    from glore.training.steps import train_step_classifier

    out_dir, work_dir, log_dir = Path(job.out_dir), Path(job.work_dir), Path(job.log_dir) if job.log_dir else None
    tuples = [{key: tuple(value) for key, value in example.items()} for example in examples]
    if job.kind == "causal":
        return train_causal_lm(
            job.base,
            [LMExample(prompt=e["prompt"], target=e["target"]) for e in tuples],
            job.settings,
            out_dir,
            seed=job.seed,
            progress=progress,
            work_dir=work_dir,
            dtype=job.dtype,
            device=job.device,
            log_dir=log_dir,
        )
    return train_step_classifier(
        job.base,
        [StepExample(e["prompt"], e["steps"], tuple(map(bool, e["labels"])), tuple(map(bool, e["kept"]))) for e in tuples],
        job.settings,
        out_dir,
        seed=job.seed,
        progress=progress,
        work_dir=work_dir,
        dtype=job.dtype,
        device=job.device,
        log_dir=log_dir,
    )


def main() -> None:
    """One process of a job."""
    folder = Path(sys.argv[1])
    try:
        _carry_out(folder)
    except GloreError as error:
        if is_first():
            (folder / "error.json").write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}), encoding="utf-8")
        # The other processes may wait in a collective for ever: leave at once, and the launcher ends them.
        os._exit(1)


if __name__ == "__main__":
    main()
