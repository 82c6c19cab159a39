"""A training that runs out of memory, here or in a launched job, says which settings to lower, and
is no bug.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from glore.errors import ModelError, out_of_memory, says_out_of_memory
from glore.progress import SilentProgress
from glore.training.finetune import train_causal_lm, train_step_classifier
from glore.training.fit import PlannedTrainer
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny

GREEDY_JOB = """
import sys
import torch
from glore.training import fit, job

def greedy(self, *args, **options):
    return torch.empty(2**60)

fit.PlannedTrainer.compute_loss = greedy
sys.argv = ["job", *sys.argv[-2:]]
job.main()
"""
KILLED_JOB = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def setup(folder: Path, launch: str = "", section: str = "student.sft") -> TrainingSetup:
    return TrainingSetup(
        out_dir=folder / "sft",
        work_dir=folder / "work",
        seed=5,
        progress=SilentProgress(),
        device="cpu",
        launch=launch,
        section=section,
    )


def greedy(*_: object, **__: object) -> torch.Tensor:
    return torch.empty(2**60)


@pytest.mark.parametrize("in_threads", [True, False])
def test_the_allocator_refuses(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_threads: bool
) -> None:
    monkeypatch.setattr(PlannedTrainer, "compute_loss", greedy)
    with pytest.raises(ModelError) as caught:
        train_causal_lm(
            base,
            tiny.lm_examples(),
            tiny.settings(gradient_checkpointing=not in_threads),
            setup(tmp_path),
        )
    said = str(caught.value)
    assert said.startswith("train sft: out of memory (")
    assert "lower student.sft.batch_size (4) and raise gradient_accumulation by as much" in said
    assert ("student.sft.gradient_checkpointing=true" in said) == in_threads
    assert "set student.sft.lora" in said
    assert said.endswith(
        "lower student.sft.max_length (96), which leaves longer rows out; then run the same "
        "command again"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_a_classifier_whose_trainer_finds_no_room(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(PlannedTrainer, "__init__", full)
    with pytest.raises(
        ModelError,
        match=r"^train sft: out of memory \(.*\); set gradient_checkpointing=true, or set lora",
    ):
        train_step_classifier(
            base, tiny.step_examples(), tiny.settings(batch_size=1), setup(tmp_path, section="")
        )


@pytest.mark.parametrize(
    ("script", "launch", "said"),
    [
        (GREEDY_JOB, "{python} {script}", "can't allocate memory"),
        (
            KILLED_JOB,
            "{python} {script}",
            "the job was killed, as the system does where memory runs out",
        ),
        (
            KILLED_JOB,
            "torchrun --nproc_per_node 1 {script}",
            "a process of the job was killed, as the system does",
        ),
        (
            "",
            "sh -c 'echo terminate called after throwing an instance of std::bad_alloc; exit 134'",
            "std::bad_alloc",
        ),
        (
            "",
            "sh -c 'echo torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB; exit 1'",
            "CUDA out of memory. Tried 2 GiB",
        ),
    ],
    ids=["the allocator refuses", "killed", "killed below torchrun", "C++", "CUDA"],
)
def test_a_launched_job(base: Path, tmp_path: Path, script: str, launch: str, said: str) -> None:
    (tmp_path / "job.py").write_text(script)
    command = launch.format(python=sys.executable, script=tmp_path / "job.py")
    with pytest.raises(ModelError) as caught:
        train_causal_lm(base, tiny.lm_examples(), tiny.settings(), setup(tmp_path, command))
    assert str(caught.value).startswith("train sft: out of memory (")
    assert said in str(caught.value)
    assert "lower student.sft.batch_size (4)" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            True,
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory"
            ),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, is_one: bool) -> None:
    assert out_of_memory(error) == is_one
    assert not says_out_of_memory("IndexError: list index out of range")


def test_packed_batches_are_made_smaller_by_their_tokens(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlannedTrainer, "compute_loss", greedy)
    for tokens in (256, 96):
        with pytest.raises(ModelError) as caught:
            train_causal_lm(
                base, tiny.lm_examples(), tiny.settings(batch_tokens=tokens), setup(tmp_path)
            )
        assert (
            "lower student.sft.batch_tokens (256) and raise gradient_accumulation by as much"
            in str(caught.value)
        ) == (tokens == 256)
        assert "batch_size" not in str(caught.value)
