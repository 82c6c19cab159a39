"""`glore label` over a server and a GGUF file, `glore train` with LoRA and in two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from glore.formats import LabelledSolution, read_solutions, write_solutions
from glore.progress import SilentProgress
from glore.records import PrefixTrials, read_records
from glore.solution_files.examples import LabelRule
from glore.solution_files.label import LabelJob, label_config, label_file
from glore.solution_files.score import ScoreJob, score_config, score_file
from glore.solution_files.train import train_config, train_file
from support.command_line import environment
from support.processes import TWO_PROCESSES
from support.tiny_gguf import tiny_llama, write_gguf
from support.tiny_training import save_base

SERVER = Path(__file__).parents[1] / "support" / "completions_server.py"
DRAW = ("rollouts=3", "max_new_tokens=8", "full_counts=true", "balance=false", "engine.device=cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def url(base: Path) -> Iterator[str]:
    """A server of the base, by the name `tiny`."""
    command = [sys.executable, str(SERVER), str(base), "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.kill()


def drafts(n: int = 3) -> list[LabelledSolution]:
    return [
        LabelledSolution(
            f"Ana has {i} pens.", ("Ana : 12 + 7 = 19", "#### 15"), answer="19", id=f"s{i}"
        )
        for i in range(n)
    ]


def label(folder: Path, policy: Path, *overrides: str) -> list[LabelledSolution]:
    folder.mkdir(exist_ok=True)
    write_solutions(folder / "in.jsonl", drafts(), "jsonl")
    job = LabelJob(folder / "in.jsonl", folder / "out.jsonl")
    label_file(job, label_config(job, str(policy), (*DRAW, *overrides)), SilentProgress())
    return list(read_solutions(job.output))


def test_labels_of_a_served_policy_are_those_of_the_policy_here(
    tmp_path: Path, base: Path, url: str
) -> None:
    served = label(
        tmp_path / "served", base, "engine.kind=http", f"engine.url={url}", "engine.model=tiny"
    )
    here = label(tmp_path / "here", base)
    assert [s.counts for s in served] == [((0, 3), None)] * 3
    assert [(s.labels, s.counts) for s in served] == [(s.labels, s.counts) for s in here]
    texts = [
        [t.completions for t in read_records(sorted(folder.glob("*.parquet")), PrefixTrials)]
        for folder in (
            tmp_path / name / "out.jsonl.work/label/stages/rollouts" for name in ("served", "here")
        )
    ]
    assert texts[0] == texts[1]


def test_labels_of_a_policy_in_a_gguf_file(tmp_path: Path) -> None:
    write_gguf(tiny_llama(), tmp_path / "tiny.gguf")
    found = label(tmp_path / "work", tmp_path / "tiny.gguf")
    assert [s.labels for s in found] == [(False, False)] * 3
    assert all(s.counts is not None for s in found)


def labelled(n: int = 24) -> list[LabelledSolution]:
    """Two solutions of each question; the wrong ones take away."""
    return [
        LabelledSolution(
            f"Ana has {i // 2} pens.",
            (f"Ana : 12 {'+-'[i % 2]} 7 = 19", "#### 15"),
            (i % 2 == 0,) * 2,
            correct=i % 2 == 0,
        )
        for i in range(n)
    ]


SMALL = ("learning_rate=0.01", "batch_size=4", "epochs=6", "max_length=96", "engine.device=cpu")


def train(rule: str, base: Path, output: Path, *overrides: str):
    config = train_config(LabelRule(rule), str(base), output, (*SMALL, *overrides))
    return train_file(labelled(), LabelRule(rule), config, output, SilentProgress(), where="f")


@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_a_reward_model_with_lora_is_trained_and_scores(
    save: str, tmp_path: Path, base: Path
) -> None:
    train("sorm", base, tmp_path / "rm", "lora.r=8", f"lora.save={save}", "learning_rate=0.03")
    assert (tmp_path / "rm" / "model.safetensors").exists() == (save == "merged")
    write_solutions(tmp_path / "in.jsonl", labelled(8), "jsonl")
    job = ScoreJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl", str(tmp_path / "rm"))
    scored = score_file(job, score_config(job, ["engine.device=cpu"]), SilentProgress())
    assert scored.steps.natural.value is not None
    assert scored.steps.natural.value > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sorm", "contrastive"])
def test_two_processes_train_a_file_as_one_does_in_two_micro_steps(
    rule: str, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = train(rule, base, tmp_path / "one", "gradient_accumulation=2", "epochs=2")
    two = train(rule, base, tmp_path / "two", "epochs=2", f"launch={TWO_PROCESSES}")
    assert two.report.n_steps == one.report.n_steps
    assert two.report.final_loss == pytest.approx(one.report.final_loss, abs=1e-4)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4
    assert not (tmp_path / "two.work").exists()
