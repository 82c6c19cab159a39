"""Trainings started by a launcher: two processes train one model, the first alone writes, and
errors come back whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from glore.errors import ConfigError, ModelError
from glore.progress import SilentProgress
from glore.prompts import ControlText
from glore.training.examples import LMExample, StepExample, TrainReport
from glore.training.finetune import train_causal_lm, train_step_classifier
from glore.training.job import prompt_of
from glore.training.job_owner import Owner, exclusive
from glore.training.launch import as_json
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny
from support.processes import TWO_PROCESSES

ACCELERATE = Path(__file__).parents[2] / "recipes" / "accelerate"


class Recorder(SilentProgress):
    """Records what was reported."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, str]] = []
        self.done = 0
        self.tokens = 0

    def begin(self, what: str, total: int, unit: str) -> None:
        self.begun.append((what, total, unit))

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self.done += n
        self.tokens += tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def train(
    base: Path, folder: Path, launch: str, progress: Recorder | None = None, **changes: object
) -> TrainReport:
    setup = TrainingSetup(
        out_dir=folder / "out",
        work_dir=folder / "work",
        seed=5,
        progress=progress or Recorder(),
        device="cpu",
        launch=launch,
    )
    return train_causal_lm(base, tiny.lm_examples(), tiny.settings(batch_size=2, **changes), setup)


class TrainedByTwo(NamedTuple):
    """A training by two processes that is over; its folder holds `out` and `work`."""

    folder: Path
    report: TrainReport
    progress: Recorder


@pytest.fixture(scope="module")
def two(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedByTwo:
    """One for the tests here: two processes take seconds to start."""
    folder, progress = tmp_path_factory.mktemp("two"), Recorder()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        report = train(base, folder, TWO_PROCESSES, progress, save_steps=2)
    return TrainedByTwo(folder, report, progress)


def test_two_processes_train_what_one_trains_in_two_micro_steps(
    two: TrainedByTwo, base: Path, tmp_path: Path
) -> None:
    one = train(base, tmp_path, "", gradient_accumulation=2)
    report = two.report
    assert (report.n_steps, report.n_rows, report.n_tokens) == (
        one.n_steps,
        one.n_rows,
        one.n_tokens,
    )
    assert report.final_loss == pytest.approx(one.final_loss, abs=1e-4)
    a, b = (load_file(folder / "out" / "model.safetensors") for folder in (two.folder, tmp_path))
    assert a.keys() == b.keys()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4
    assert two.progress.begun == [("train out", report.n_steps, "steps")]
    assert (two.progress.done, two.progress.tokens) == (report.n_steps, report.n_tokens)
    assert sorted(p.name for p in two.folder.iterdir()) == ["out", "work"]
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(two.folder / "out")(
            torch.tensor([[3, 4, 5]])
        ).logits
    assert torch.isfinite(logits).all()


def test_checkpoints_of_two_processes_are_whole_with_the_parts_of_both(
    two: TrainedByTwo, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(two.folder / "work", tmp_path / "work")
    checkpoints = tmp_path / "work" / "checkpoints"
    assert sorted(p.name for p in checkpoints.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-5",
    ]
    shutil.rmtree(checkpoints / "checkpoint-5")
    (checkpoints / "checkpoint-4" / "rng_state_1.pth").unlink()
    notes: list[str] = []
    progress = Recorder()
    monkeypatch.setattr(progress, "note", notes.append)
    train(base, tmp_path, TWO_PROCESSES, progress, save_steps=2)
    assert [note.partition(" (")[0] for note in notes] == ["train out: checkpoint-4 can't be used"]
    assert notes[0].endswith(
        "rng_state_1.pth is missing or unreadable), and none is complete, so the training starts "
        "anew"
    )
    whole, again = (folder / "out" / "model.safetensors" for folder in (two.folder, tmp_path))
    assert again.read_bytes() == whole.read_bytes()


KILLED = """
import sys
from support import tiny_training as tiny
from support.processes import TWO_PROCESSES
from pathlib import Path
from glore.progress import SilentProgress
from glore.prompts import ControlText
from glore.training.finetune import train_causal_lm
from glore.training.training_setup import TrainingSetup

class Told(SilentProgress):
    def advance(self, n=1, tokens=0):
        print("step", flush=True)

folder = Path(sys.argv[2])
setup = TrainingSetup(
    out_dir=folder / "out", work_dir=folder / "work", seed=5, progress=Told(),
    device="cpu", launch=sys.executable,
)
examples, settings = tiny.lm_examples(), tiny.settings(batch_size=1, max_steps=5000)
train_causal_lm(sys.argv[1], examples, settings, setup)
"""


def test_a_job_ends_with_the_run_that_launched_it(base: Path, tmp_path: Path) -> None:
    """A killed run can't stop its job: the job ends by itself, and the next one waits for it."""
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(base), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"step\n"
        run.kill()
        run.stdout.close()
    begin = time.monotonic()
    with exclusive(tmp_path / "work" / "job", SilentProgress()):
        assert time.monotonic() - begin < 20
    assert not (tmp_path / "out").exists()
    late = [
        sys.executable,
        "-m",
        "glore.training.job",
        str(tmp_path / "work" / "job"),
        "another launch",
    ]
    done = subprocess.run(late, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "the run that launched this training is gone\n")


def test_an_owner_on_another_machine_is_not_taken_for_gone() -> None:
    assert not Owner.me().is_gone()
    assert dataclasses.replace(Owner.me(), pid=2**22 + 1).is_gone()
    assert not dataclasses.replace(Owner.me(), pid=2**22 + 1, place="another machine").is_gone()


@pytest.mark.slow
def test_two_processes_learn_soft_labels_as_one_does(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reports = []
    for name, launch, accumulated in (("two", TWO_PROCESSES, 1), ("one", "", 2)):
        setup = TrainingSetup(
            out_dir=tmp_path / name,
            work_dir=tmp_path / f"{name}-work",
            seed=5,
            progress=Recorder(),
            device="cpu",
            launch=launch,
        )
        settings = tiny.settings(gradient_accumulation=accumulated)
        reports.append(train_step_classifier(base, tiny.soft_examples(), settings, setup))
    assert reports[0].final_loss == pytest.approx(reports[1].final_loss, abs=1e-4)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4


def test_a_step_classifier_as_a_job_is_the_one_trained_here(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    # Characters that str.splitlines takes for ends of lines must not cut the file that hands the
    # examples over.
    odd = StepExample(
        ("Question: Ana\u2028has\x85 7\x0b pens\x0c.\r\nAnswer:\n",),
        ("Ana :\u2029 12\x1c + 7\n",),
        (True,),
        (True,),
    )
    examples = [*tiny.soft_examples(), odd]
    for name, launch in (("job", sys.executable), ("here", "")):
        setup = TrainingSetup(
            out_dir=tmp_path / name,
            work_dir=tmp_path / f"{name}-work",
            seed=5,
            progress=Recorder(),
            device="cpu",
            launch=launch,
        )
        train_step_classifier(base, examples, tiny.settings(), setup)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("job", "here"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-5
    handed_over = json.loads((tmp_path / "job-work" / "job" / "job.json").read_text())["setup"]
    known = {f.name for f in dataclasses.fields(TrainingSetup)}
    assert set(handed_over) == known - {"progress", "launch"}, (
        "a field that is not handed over would keep its default in a job"
    )


def test_errors_of_a_job_are_those_of_a_training_here(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no model folder") as caught:
        train(tmp_path / "none", tmp_path, sys.executable)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="can't start 'no-such-launcher': No such file"):
        train(base, tmp_path, "no-such-launcher --fast")
    with pytest.raises(ModelError, match=r"ended with code 2: .*output\.log"):
        train(base, tmp_path, f"{sys.executable} --no-such-option")


def test_a_job_runs_no_code_of_its_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = Path(shutil.copytree(base, tmp_path / "evil"))
    (evil / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'marker')!r}).touch()\n"
    )
    config = json.loads((evil / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (evil / "config.json").write_text(json.dumps(config))
    says_yes = tmp_path / "yes"
    says_yes.write_text("y\n" * 100)
    with says_yes.open() as stream:
        monkeypatch.setattr(
            "glore.training.launch.subprocess.Popen", partial(subprocess.Popen, stdin=stream)
        )
        with pytest.raises(
            ModelError,
            match=r"it needs code of its own \(evil\.Config.*\), and glore runs no such code",
        ):
            train(evil, tmp_path, sys.executable)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("path", sorted(ACCELERATE.glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_takes_the_shipped_configurations(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    assert (
        config.distributed_type.value
        == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero3": "DEEPSPEED"}[path.stem]
    )


def test_control_text_stays_control_text_on_its_way_to_a_job() -> None:
    prompt = (ControlText("<|im_start|>user\n"), "How many?", ControlText("<|im_end|>\n"), "a\n")
    for example in (
        LMExample(prompt, ("b\n",)),
        StepExample(prompt, ("b\n",), (True,), (False,)),
        LMExample(prompt[1:2], ("b\n",)),
    ):
        back = prompt_of(json.loads(json.dumps(as_json(example))))
        assert back == example.prompt
        assert list(map(type, back)) == list(map(type, example.prompt))
