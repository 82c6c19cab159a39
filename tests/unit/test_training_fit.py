from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from glore.config.training import TRACKERS
from glore.digests import write_digests
from glore.errors import ConfigError, ModelError
from glore.models import load_tokenizer
from glore.progress import SilentProgress
from glore.tokenization import encode_segments
from glore.training import fit
from glore.training.examples import TrainReport
from glore.training.finetune import train_causal_lm, train_step_classifier
from glore.training.optimizers import Float32Muon, MuonWithAdamW, split_parameters
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Recorder(SilentProgress):
    """Counts, and dies at a step when asked to."""

    def __init__(self, die_at: int = 0) -> None:
        self.done, self.tokens, self.notes, self.die_at, self.total = 0, 0, [], die_at, 0

    def begin(self, what: str, total: int, unit: str) -> None:
        self.total = total

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self.done += n
        self.tokens += tokens
        if self.die_at and self.done == self.die_at:
            raise Killed

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def train(
    base: Path,
    tmp_path: Path,
    name: str,
    progress: Recorder | None = None,
    work: str | None = None,
    **changes: object,
):
    out = tmp_path / name
    setup = TrainingSetup(
        out_dir=out,
        work_dir=tmp_path / (work or f"{name}-work"),
        seed=5,
        progress=progress or Recorder(),
    )
    return train_causal_lm(base, tiny.lm_examples(), tiny.settings(**changes), setup), out


def train_orm(base: Path, tmp_path: Path, **changes: object) -> tuple[TrainReport, Path]:
    setup = TrainingSetup(
        out_dir=tmp_path / "orm", work_dir=tmp_path / "w", seed=1, progress=Recorder()
    )
    return train_step_classifier(
        base, tiny.step_examples(), tiny.settings(**changes), setup
    ), setup.out_dir


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_learns_and_the_checkpoint_loads(
    architecture: str, optimizer: str, tmp_path: Path
) -> None:
    base = tiny.save_base(tmp_path / "base", architecture)
    progress = Recorder()
    report, out = train(base, tmp_path, "student", progress, epochs=8, optimizer=optimizer)
    assert (report.n_rows, report.n_dropped, report.n_steps) == (10, 0, 24)
    assert (progress.done, progress.total, progress.tokens) == (24, 24, report.n_tokens)
    first = train(base, tmp_path, "first", max_steps=1, optimizer=optimizer)[0].final_loss
    assert report.final_loss < 0.6 * first
    assert AutoModelForCausalLM.from_pretrained(out).config.use_cache is True
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("[BAD]") == 2
    assert "optimiser steps: 24" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    [{}, {"optimizer": "muon"}, {"lora": {"r": 4, "dropout": 0.1}, "bf16": True}],
    ids=["adamw", "muon", "lora"],
)
def test_a_killed_training_resumes_to_the_same_bytes(
    base: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    changes = {**change, "save_steps": 2, "gradient_accumulation": 2, "epochs": 4}
    whole, out = train(base, tmp_path, "whole", **changes)
    with pytest.raises(Killed):
        train(base, tmp_path, "killed", Recorder(die_at=5), work="w", **changes)
    progress = Recorder()
    resumed, again = train(base, tmp_path, "resumed", progress, work="w", **changes)
    # A processor without bfloat16 is noted before; nothing else is.
    notes = [note for note in progress.notes if "no bfloat16 instructions" not in note]
    assert notes == ["train resumed: resumed at step 4 of 6"]
    assert progress.done == progress.total == 6
    assert weights(out) == weights(again)
    assert (whole.final_loss, whole.n_tokens) == (resumed.final_loss, resumed.n_tokens)


def test_a_killed_training_on_soft_labels_resumes_to_the_same_bytes(
    base: Path, tmp_path: Path
) -> None:
    def train_prm(name: str, work: str, die_at: int = 0) -> Recorder:
        progress = Recorder(die_at)
        setup = TrainingSetup(
            out_dir=tmp_path / name, work_dir=tmp_path / work, seed=1, progress=progress
        )
        changed = tiny.settings(save_steps=2, epochs=2)
        train_step_classifier(base, tiny.soft_examples(), changed, setup)
        return progress

    train_prm("whole", "w1")
    with pytest.raises(Killed):
        train_prm("killed", "w2", die_at=5)
    notes = train_prm("resumed", "w2").notes
    assert [n for n in notes if "resumed at" in n] == ["train resumed: resumed at step 4 of 8"]
    assert weights(tmp_path / "whole") == weights(tmp_path / "resumed")


def killed_training(base: Path, tmp_path: Path, **changes: object) -> Path:
    """The checkpoints (steps 2 and 4 of 6) of a training that was killed at step 5."""
    with pytest.raises(Killed):
        train(base, tmp_path, "killed", Recorder(die_at=5), work="w", save_steps=2, **changes)
    folder = tmp_path / "w" / "checkpoints"
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return folder


FILES = [
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "model.safetensors",
    "glore-digests.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["remove", "truncate", "flip"])
def test_a_checkpoint_that_is_not_whole_is_not_used_and_the_one_before_is(
    base: Path, tmp_path: Path, name: str, damage: str
) -> None:
    folder = killed_training(base, tmp_path)
    _, whole = train(base, tmp_path, "whole", save_steps=2)
    path = folder / "checkpoint-4" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(
        {"remove": b"", "truncate": bytes(data[: len(data) // 2]), "flip": bytes(data)}[damage]
    )
    if damage == "remove":
        path.unlink()
    progress = Recorder()
    _, out = train(base, tmp_path, "resumed", progress, work="w", save_steps=2)
    assert len(progress.notes) == 2
    assert progress.notes[0].startswith("train resumed: checkpoint-4 can't be used (")
    assert name in progress.notes[0]
    assert progress.notes[0].endswith("so the checkpoint before is taken: checkpoint-2")
    assert progress.notes[1] == "train resumed: resumed at step 2 of 6"
    assert weights(out) == weights(whole)


def test_without_a_whole_checkpoint_the_training_starts_anew_and_says_so(
    base: Path, tmp_path: Path
) -> None:
    folder = killed_training(base, tmp_path)
    _, whole = train(base, tmp_path, "whole", save_steps=2)
    for path in folder.glob("checkpoint-*/optimizer.pt"):
        path.unlink()
    progress = Recorder()
    _, out = train(base, tmp_path, "resumed", progress, work="w", save_steps=2)
    (note,) = progress.notes
    assert note.startswith("train resumed: checkpoint-4 and 1 more can't be used (")
    assert note.endswith("none is complete, so the training starts anew")
    assert weights(out) == weights(whole)
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ], "two are kept, both of this training"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_nothing_in_a_checkpoint_is_run(base: Path, tmp_path: Path, name: str) -> None:
    checkpoint = killed_training(base, tmp_path) / "checkpoint-4"
    torch.save(Evil(tmp_path / "marker"), checkpoint / name)
    write_digests(checkpoint)
    with pytest.raises(
        ModelError, match=r"checkpoint-4 holds more than tensors and numbers, which could run code"
    ) as caught:
        train(base, tmp_path, "resumed", work="w", save_steps=2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


def test_copied_and_touched_checkpoints_are_as_good(base: Path, tmp_path: Path) -> None:
    folder = killed_training(base, tmp_path)
    _, whole = train(base, tmp_path, "whole", save_steps=2)
    shutil.move(folder, tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", folder, copy_function=os.link)
    for path in folder.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    progress = Recorder()
    _, out = train(base, tmp_path, "resumed", progress, work="w", save_steps=2)
    assert progress.notes == ["train resumed: resumed at step 4 of 6"]
    assert weights(out) == weights(whole)


def test_checkpoints_of_another_training_are_kept_and_found_again(
    base: Path, tmp_path: Path
) -> None:
    killed_training(base, tmp_path)
    progress = Recorder()
    train(base, tmp_path, "other", progress, work="w", save_steps=2, learning_rate=1e-3)
    (note,) = progress.notes
    assert note.startswith(
        "train other: the checkpoints there are of a training with other settings"
    )
    progress = Recorder()
    _, out = train(base, tmp_path, "resumed", progress, work="w", save_steps=2)
    assert progress.notes[-1] == "train resumed: resumed at step 4 of 6"
    assert weights(out) == weights(train(base, tmp_path, "whole", save_steps=2)[1])


def test_the_same_seed_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    assert weights(train(base, tmp_path, "a")[1]) == weights(train(base, tmp_path, "b")[1])


def test_the_learning_rate_is_a_cosine_with_warmup_down_to_its_floor(
    base: Path, tmp_path: Path
) -> None:
    import json

    train(
        base,
        tmp_path,
        "lr",
        epochs=10,
        save_steps=30,
        warmup_ratio=0.1,
        min_learning_rate_ratio=0.1,
    )
    state = json.loads(
        (tmp_path / "lr-work/checkpoints/checkpoint-30/trainer_state.json").read_text()
    )
    rates = [entry["learning_rate"] for entry in state["log_history"]]
    expected = [1e-2 * s / 3 for s in range(3)] + [
        1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (s - 3) / 27))) for s in range(3, 30)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest() -> None:
    for architecture in ("llama", "gpt_neox"):
        model = tiny.tiny_model(architecture, 40)
        names = {id(p): n for n, p in model.named_parameters()}
        hidden, other = split_parameters(model)
        assert all(p.ndim == 2 and "layers" in names[id(p)] for p in hidden)
        assert {names[id(p)] for p in other if p.ndim == 2} <= {
            "model.embed_tokens.weight",
            "gpt_neox.embed_in.weight",
            "embed_out.weight",
            "lm_head.weight",
        }
        assert len(hidden) + len(other) == len(names)


def test_muon_with_adamw_schedules_saves_and_loads_as_one() -> None:
    def run(
        n: int, state: dict[str, object] | None = None, start: list[torch.Tensor] | None = None
    ) -> tuple[list[torch.Tensor], dict[str, object]]:
        torch.manual_seed(0)
        parameters = [
            torch.nn.Parameter(p.clone()) for p in start or [torch.randn(4, 6), torch.randn(6)]
        ]
        optimizer = MuonWithAdamW(parameters[:1], parameters[1:], lr=0.1, weight_decay=0.01)
        if state is not None:
            optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        for _ in range(n):
            optimizer.zero_grad()
            sum((p**2).sum() for p in parameters).backward()
            optimizer.step()
        assert [g["lr"] for part in optimizer.parts for g in part.param_groups] == [0.05, 0.05]
        return [p.detach() for p in parameters], optimizer.state_dict()

    whole, _ = run(4)
    half, state = run(2)
    rest, _ = run(2, state, half)
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))


def test_a_step_classifier_loads_plainly_and_separates_what_it_saw(
    base: Path, tmp_path: Path
) -> None:
    report, out = train_orm(base, tmp_path, epochs=12)
    assert report.n_rows == 16
    assert report.final_loss < 0.2
    model = AutoModelForTokenClassification.from_pretrained(out)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.classifier_dropout == 0.0
    tokenizer = load_tokenizer(out)
    for example in tiny.step_examples():
        logits = model(
            input_ids=torch.tensor([encode_segments(tokenizer, (*example.prompt, *example.steps))])
        ).logits[0]
        assert bool(logits[-1].argmax()) == example.labels[-1]


def test_lora_trains_adapters_and_saves_a_plain_model(base: Path, tmp_path: Path) -> None:
    report, out = train(base, tmp_path, "student", lora={"r": 4}, epochs=1)
    before, after = (
        AutoModelForCausalLM.from_pretrained(base),
        AutoModelForCausalLM.from_pretrained(out),
    )
    assert report.n_steps == 3
    names = dict(after.named_parameters())
    assert set(names) == {n for n, _ in before.named_parameters()}
    assert not torch.equal(
        names["model.layers.0.mlp.up_proj.weight"],
        dict(before.named_parameters())["model.layers.0.mlp.up_proj.weight"],
    )
    embeddings = torch.ne(names["model.embed_tokens.weight"], before.model.embed_tokens.weight).any(
        dim=1
    )
    assert embeddings.nonzero().flatten().tolist() == [2], "of the embeddings only [BAD] moves"
    assert not (out / "adapter_config.json").exists()
    _, orm = train_orm(base, tmp_path, lora={"r": 4})
    assert AutoModelForTokenClassification.from_pretrained(orm).score.weight.shape == (2, 32)


def test_lora_without_peft_is_a_clear_error(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="lora needs peft, which is not installed"):
        train(base, tmp_path, "student", lora={"r": 4})


@pytest.mark.parametrize(
    "changes",
    [{"bf16": True}, {"gradient_checkpointing": True}, {"bf16": True, "optimizer": "muon"}],
)
def test_bf16_and_gradient_checkpointing_learn_nearly_the_same(
    base: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    plain = train(base, tmp_path, "plain", epochs=2, optimizer=changes.get("optimizer", "adamw"))[0]
    other = train(base, tmp_path, "other", epochs=2, **changes)[0]
    assert other.final_loss == pytest.approx(plain.final_loss, rel=0.03)


def test_tensorboard_writes_into_the_log_folder(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")  # not among what make test-vllm installs
    train(base, tmp_path, "student", report_to=("tensorboard",), epochs=1)
    assert list((tmp_path / "student-work/log/student").glob("events*"))


def test_trackers_are_told_the_run_and_the_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trackio would make up a name, and put every training of every program into one project."""
    told: list[tuple[str, str | None]] = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args: TrainingArguments, *_: object, **__: object) -> None:
            told.append((args.project, args.run_name))

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    train(base, tmp_path, "student", report_to=("trackio",), max_steps=1)
    setup = TrainingSetup(
        out_dir=tmp_path / "orm",
        work_dir=tmp_path / "w",
        log_dir=tmp_path / "a-run" / "log",
        seed=1,
        progress=Recorder(),
    )
    settings = tiny.settings(report_to=("trackio",), max_steps=1)
    train_causal_lm(base, tiny.lm_examples(), settings, setup)
    assert told == [("glore", "student"), ("glore", "a-run/orm")]


def test_errors_are_one_line_and_come_before_training(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"nothing to train on for train student: 0 rows left, "
        r"10 dropped as longer than max_length=16",
    ):
        train(base, tmp_path, "student", max_length=16)
    with pytest.raises(ModelError, match="no model folder"):
        train(tmp_path / "nowhere", tmp_path, "student")
    with pytest.raises(ConfigError, match="these training settings don't work here"):
        train(base, tmp_path, "student", report_to=("clearml",))
    assert not (tmp_path / "student").exists()


def test_the_settings_know_every_tracker_of_the_trainer() -> None:
    assert set(INTEGRATION_TO_CALLBACK) <= set(TRACKERS)


def test_a_loss_that_is_no_number_stops_the_training(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.layers[0].mlp.up_proj.weight.data.fill_(3e38)  # finite, and what comes out is not
    model.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "nan")
    with pytest.raises(ModelError, match="the loss is nan at step 1 of 6; lower learning_rate"):
        train(tmp_path / "nan", tmp_path, "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 8)])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_muon_in_float32_makes_the_singular_values_of_a_step_alike(
    shape: tuple[int, int], size: float
) -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spectrum = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.1, 0.05, 0.04, 0.02])
    p, alike = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    for q, singular in ((p, spectrum), (alike, torch.ones(8))):
        q.grad = u @ torch.diag(singular) @ vh * size
    Float32Muon([p, alike], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    scale = 0.2 * max(shape) ** 0.5
    for q in (p, alike):
        moved = -u.T @ q.detach() @ vh.T / scale  # in the basis of the gradient's own directions
        assert (moved - torch.diag(moved.diagonal())).abs().max() < 1e-3
        assert 0.72 < moved.diagonal().min() < moved.diagonal().max() < 1.28
    q = torch.nn.Parameter(torch.ones(shape))
    q.grad = torch.zeros(shape)
    Float32Muon([q], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(q, torch.ones(shape))


def test_muon_in_float32_steps_where_torchs_does() -> None:
    """In the same direction and about as far: both move singular values to about 1, torch's to 0.7
    to 1.2.
    """
    torch.manual_seed(0)
    shapes = [(8, 24), (24, 8), (8, 8), (8, 24)]
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    ours = [torch.nn.Parameter(p.detach().clone()) for p in theirs]
    optimisers = [
        kind(ps, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for kind, ps in ((torch.optim.Muon, theirs), (Float32Muon, ours))
    ]
    for _ in range(3):
        start = [p.detach().clone() for p in ours]
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        for p, q, before in zip(ours, theirs, start, strict=True):
            a, b = (p - before).detach().flatten(), (q - before).detach().flatten()
            assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.95
            assert 0.7 < a.norm() / b.norm() < 1.4
            q.data.copy_(p.data)


def test_bf16_is_off_with_a_word_where_the_processor_would_emulate_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for bf16 in (False, True):
        monkeypatch.setattr(fit, "computes_bfloat16", lambda device: device != "cpu")
        progress = Recorder()
        out = tmp_path / f"bf16-{bf16}"
        setup = TrainingSetup(
            out_dir=out, work_dir=tmp_path / f"w{bf16}", seed=1, progress=progress
        )
        train_step_classifier(base, tiny.step_examples(), tiny.settings(epochs=1, bf16=bf16), setup)
        assert any("no bfloat16 instructions" in note for note in progress.notes) == bf16
        results.append(AutoModelForTokenClassification.from_pretrained(out).score.weight)
    assert torch.equal(*results)
