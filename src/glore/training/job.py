"""One process of a training on several devices: `-m glore.training.job FOLDER TOKEN`.

`glore.training.launch` starts it through the launcher. It reads the examples and settings in
FOLDER, trains, and leaves a report or an error there. TOKEN names the launch that it belongs to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from glore.config import TrainSettings
from glore.errors import GloreError
from glore.files import replacing, split_lines
from glore.progress import Progress, SilentProgress
from glore.prompts import ControlText
from glore.reward_models.layouts import step_layout
from glore.step_head import StepHead
from glore.step_layouts.parts import StepLayout
from glore.training.distributed import is_first
from glore.training.examples import LMExample, StepExample, TrainReport
from glore.training.job_owner import still_owned
from glore.training.launch import MARK, Kind
from glore.training.pairs import PairExample
from glore.training.training_setup import TrainingSetup

__all__ = ["main", "prompt_of"]


class _PrintedProgress:
    """Prints progress as lines for the process that launched this one."""

    def begin(self, what: str, total: int, unit: str) -> None:
        self._print({"begin": what, "total": total, "unit": unit})

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self._print({"advance": n, "tokens": tokens})

    def note(self, message: str) -> None:
        self._print({"note": message})

    def _print(self, event: Mapping[str, object]) -> None:
        print(MARK + json.dumps(event), flush=True)


def _carry_out(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    progress: Progress = _PrintedProgress() if is_first() else SilentProgress()
    paths = {
        key: Path(job["setup"][key])
        for key in ("out_dir", "work_dir", "log_dir")
        if job["setup"][key] is not None
    }
    setup = TrainingSetup(**{**job["setup"], **paths, "progress": progress})
    lines = split_lines((folder / "examples.jsonl").read_bytes().decode("utf-8"))
    examples = [json.loads(line) for line in lines if line]
    given = job["head"]
    head = StepHead(**{**given, "label_tokens": tuple(given["label_tokens"])})
    settings = TrainSettings.model_validate(job["settings"])
    note = job["layout"]
    layout = None if note is None else step_layout(note.pop("layout"), note)
    report = _train(job["kind"], job["base"], examples, settings, setup, head, layout)
    if is_first():
        with replacing(folder / "report.json") as stream:
            stream.write(json.dumps(dataclasses.asdict(report)).encode())


def _train(
    kind: Kind,
    base: str,
    examples: list[dict[str, list[object]]],
    settings: TrainSettings,
    setup: TrainingSetup,
    head: StepHead,
    layout: StepLayout | None,
) -> TrainReport:
    # Late: a process whose run is gone ends before torch is imported, which takes seconds.
    from glore.training.finetune import train_causal_lm, train_contrastive, train_step_classifier

    if kind == "causal":
        pairs = [LMExample(prompt=prompt_of(e), target=_texts(e["target"])) for e in examples]
        return train_causal_lm(base, pairs, settings, setup)
    if kind == "pairs":
        both = [PairExample(prompt_of(e), _texts(e["right"]), _texts(e["wrong"])) for e in examples]
        return train_contrastive(base, both, settings, setup)
    steps = [
        StepExample(
            prompt_of(e),
            _texts(e["steps"]),
            tuple(cast("list[float]", e["labels"])),
            tuple(map(bool, e["kept"])),
        )
        for e in examples
    ]
    return train_step_classifier(base, steps, settings, setup, head, layout)


def prompt_of(example: Mapping[str, Sequence[object]]) -> tuple[str, ...]:
    """The prompt of an example that `glore.training.launch.as_json` wrote."""
    controls = set(example.get("controls", ()))
    segments = _texts(example["prompt"])
    return tuple(ControlText(s) if i in controls else s for i, s in enumerate(segments))


def _texts(segments: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, segments))


def main() -> None:
    """Run one process of a job."""
    folder = Path(sys.argv[1])
    if not still_owned(folder, sys.argv[2]):
        sys.exit("the run that launched this training is gone")
    try:
        _carry_out(folder)
    except GloreError as error:
        # Any process may write it: if one alone runs out of memory, it need not be the first. The
        # one that fails first has the cause.
        said = json.dumps({"kind": type(error).__name__, "message": str(error)})
        with (
            contextlib.suppress(FileExistsError),
            (folder / "error.json").open("x", encoding="utf-8") as file,
        ):
            file.write(said)
        # The other processes may wait in a collective for ever: exit at once, and the launcher
        # ends them.
        os._exit(1)


if __name__ == "__main__":
    main()
