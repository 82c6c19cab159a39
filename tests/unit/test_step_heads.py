"""Reward models with two and three classes, by a head of their own and by label tokens: losses by
value, and training → folder → scores, read here and with transformers alone.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer
from typer.testing import CliRunner

import glore
from glore.cli.app import app
from glore.config import EngineSettings, RewardModelSettings, RunConfig
from glore.engines.local.scorer import StepScorer
from glore.errors import ConfigError, DataError, ModelError
from glore.formats import LabelledSolution, write_solutions
from glore.formats.labelled import NEUTRAL
from glore.models import load_step_model, load_tokenizer, new_step_model
from glore.pipeline import plan_stages, run_stages
from glore.pipeline.marks import read_done
from glore.progress import SilentProgress
from glore.prompts import PLAIN
from glore.reward_models.layouts import NOTE, note_of, noted_head, noted_layout
from glore.reward_models.open import open_model_of_run, open_reward_model
from glore.solution_files.examples import OF_OTHERS, LabelRule, step_head
from glore.solution_files.train import train_config, train_file
from glore.stages import build_stages
from glore.step_head import BINARY, StepHead
from glore.step_layouts.apart import GloreLayout
from glore.step_layouts.whole_texts import sign_tokens
from glore.training.examples import StepExample
from glore.training.finetune import train_step_classifier
from glore.training.trainer import summed_label_losses, summed_losses
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny
from support.pretend_models import config_of, pretend
from support.reward_checkpoints import save_checkpoint
from support.tiny_models import tiny_lm, tiny_tokenizer

TOKENS = ("+", "-", ":")
HEADS = {
    f"{kind}_{n}": StepHead(kind, n, TOKENS) for kind in ("classes", "label_token") for n in (2, 3)
}
ITEMS = [
    ("Ana has 3 pens.", ("Ana : 12 + 7", "#### 15")),
    ("Ana has 3 pens.", ("Ana : 12 - 7", "Tom : 19 - 4 = 15", "#### 15")),
]
THREE_STEPS = ("Ana : 12 + 7 = 19", "#### 15", "Tom : 19 - 4")
LABELS = (True, False, NEUTRAL)


def of_three(n: int = 48) -> list[LabelledSolution]:
    """One step of one of three kinds, each with its label."""
    return [
        LabelledSolution(f"Ana has {i} pens.", (THREE_STEPS[i % 3],), (LABELS[i % 3],), id=f"s{i}")
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name in `HEADS` → the folder of a model with that head."""
    folder = tmp_path_factory.mktemp("models")
    for name, head in HEADS.items():
        train(base, folder / name, head)
    return {name: folder / name for name in HEADS}


def train(base: Path, output: Path, head: StepHead, *overrides: str, neutral: str = "good") -> None:
    rule = LabelRule("prm", neutral=neutral, head=dataclasses.replace(head, neutral=neutral))
    small = ("learning_rate=0.01", "batch_size=4", "epochs=16", "max_length=96")
    config = train_config(rule, str(base), output, (*small, "engine.device=cpu", *overrides))
    train_file(of_three(), rule, config, output, SilentProgress(), where="f")


@torch.inference_mode()
def read_elsewhere(folder: Path, head: StepHead) -> list[list[list[float]]]:
    """Per solution and step, the probability of each class, with transformers alone."""
    kind = AutoModelForCausalLM if head.says_tokens else AutoModelForTokenClassification
    model, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    good, bad, *rest = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in TOKENS)
    rows = [i for (i,) in (bad, good, *rest)][: head.n_classes]
    found = []
    for solution in glore.encode_solutions(folder, ITEMS):
        logits = model(torch.tensor([solution.token_ids])).logits[0, solution.positions]
        found.append((logits[:, rows] if head.says_tokens else logits).softmax(-1).tolist())
    return found


@pytest.mark.parametrize("name", HEADS)
def test_scores_of_a_folder_are_those_of_transformers(name: str, trained: dict[str, Path]) -> None:
    head, folder = HEADS[name], trained[name]
    expected = read_elsewhere(folder, head)
    with open_reward_model(folder) as scorer, open_model_of_run(folder, tiny_engine()) as in_run:
        assert scorer.score(ITEMS) == in_run.score(ITEMS)
        for got, steps in zip(scorer.score(ITEMS), expected, strict=True):
            assert got == pytest.approx([sum(p[1:]) for p in steps], abs=2e-5)
    if head.n_classes == 3:
        with open_reward_model(folder, neutral="bad") as scorer:
            for got, steps in zip(scorer.score(ITEMS), expected, strict=True):
                assert got == pytest.approx([p[1] for p in steps], abs=2e-5)
    else:
        with pytest.raises(ConfigError, match="has two classes"):
            open_reward_model(folder, neutral="bad")
    assert noted_head(folder, "") == dataclasses.replace(
        head, label_tokens=TOKENS[: head.n_classes] if head.says_tokens else BINARY.label_tokens
    )


def tiny_engine() -> EngineSettings:
    return EngineSettings(device="cpu")


@pytest.mark.parametrize("name", ["classes_3", "label_token_3"])
def test_three_kinds_of_steps_are_told_apart(name: str, trained: dict[str, Path]) -> None:
    items = [("Ana has 5 pens.", (step,)) for step in THREE_STEPS]
    with open_reward_model(trained[name]) as scorer:
        as_good = [p for (p,) in scorer.score(items)]
    with open_reward_model(trained[name], neutral="bad") as scorer:
        as_bad = [p for (p,) in scorer.score(items)]
    assert [p > 0.5 for p in as_good] == [True, False, True]
    assert [p > 0.5 for p in as_bad] == [True, False, False]


@pytest.mark.parametrize("layout", ["trl", "math_shepherd", "rlhflow"])
def test_a_model_in_the_layout_of_another_library(layout: str, tmp_path: Path) -> None:
    """It is read back without a name, and where its authors' own code reads it."""
    start, folder = save_checkpoint(layout, tmp_path / "start"), tmp_path / "prm"
    head = StepHead(OF_OTHERS[layout], label_tokens=("+", "-"))
    rule = LabelRule("prm", neutral="bad", head=head, layout=layout)
    small = ("learning_rate=0.01", "batch_size=4", "epochs=2", "engine.device=cpu")
    config = train_config(rule, str(start), folder, small)
    train_file(of_three(), rule, config, folder, SilentProgress(), where="f")
    kind = AutoModelForCausalLM if head.says_tokens else AutoModelForTokenClassification
    model, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = sign_tokens(tokenizer, layout)[::-1] if head.says_tokens else (0, 1)
    with open_reward_model(folder) as scorer, torch.inference_mode():
        assert scorer.layout.name == layout
        scores = scorer.score(ITEMS)
        for solution, got in zip(
            glore.encode_solutions(folder, ITEMS, layout), scores, strict=True
        ):
            logits = model(torch.tensor([solution.token_ids])).logits[0, solution.positions]
            p_good = logits[:, list(rows)].softmax(-1)[:, 1]
            assert got == pytest.approx(p_good.tolist(), abs=5e-5)
    with open_reward_model(start, layout) as before:
        assert before.score(ITEMS) != scores
    wrong = "classes" if head.says_tokens else "label_token"
    with pytest.raises(ConfigError, match=f"--head {head.kind} --classes 2"):
        LabelRule("prm", head=StepHead(wrong), layout=layout)


def test_neutral_as_bad_is_noted_and_counts_wherever_the_folder_goes(
    base: Path, tmp_path: Path
) -> None:
    train(base, tmp_path / "prm", HEADS["classes_3"], "epochs=1", neutral="bad")
    assert noted_head(tmp_path / "prm", "").neutral == "bad"
    with (
        open_reward_model(tmp_path / "prm") as noted,
        open_reward_model(tmp_path / "prm", neutral="bad") as bad,
        open_reward_model(tmp_path / "prm", neutral="good") as good,
        open_model_of_run(tmp_path / "prm", tiny_engine()) as in_run,
    ):
        assert noted.score(ITEMS) == bad.score(ITEMS) == in_run.score(ITEMS)
        assert all(
            a < b
            for x, y in zip(bad.score(ITEMS), good.score(ITEMS), strict=True)
            for a, b in zip(x, y, strict=True)
        )


def test_exports_hold_two_classes(trained: dict[str, Path], tmp_path: Path) -> None:
    written = glore.export_reward_model(trained["label_token_2"], tmp_path / "two")
    with open_reward_model(trained["label_token_2"]) as source, open_reward_model(written) as made:
        for a, b in zip(source.score(ITEMS), made.score(ITEMS), strict=True):
            assert b == pytest.approx(a, abs=2e-5)
    for name in ("classes_3", "label_token_3"):
        with pytest.raises(ModelError, match=r"three classes .* --classes 2") as caught:
            glore.export_reward_model(trained[name], tmp_path / "three")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("name", ["classes_3", "label_token_2"])
def test_an_adapter_is_opened_as_the_merged_model(name: str, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    scores = {}
    for save in ("merged", "adapter"):
        train(base, tmp_path / save, HEADS[name], "epochs=1", "lora.r=2", f"lora.save={save}")
        with open_reward_model(tmp_path / save) as scorer:
            scores[save] = scorer.score(ITEMS)
    for a, b in zip(scores["merged"], scores["adapter"], strict=True):
        assert b == pytest.approx(a, abs=1e-5)


def test_the_loss_of_label_tokens_by_value() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    log_p = logits.log_softmax(-1)
    tokens, weights = (7, 2, 4), torch.tensor([1.0, 2.0, 1.0, 3.0])
    hard = summed_label_losses(logits, torch.tensor([0, 1, 2, 1]), weights, tokens)
    expected = -(log_p[0, 7] + 2 * log_p[1, 2] + log_p[2, 4] + 3 * log_p[3, 2])
    assert hard == pytest.approx(float(expected), rel=1e-6)
    soft = summed_label_losses(logits, torch.tensor([0.25, 1.0, 0.0, 0.5]), weights, tokens)
    each = [(1 - p) * log_p[i, 7] + p * log_p[i, 2] for i, p in enumerate((0.25, 1.0, 0.0, 0.5))]
    assert soft == pytest.approx(-float(sum(w * x for w, x in zip(weights, each, strict=True))))
    three = summed_losses(logits[:, :3], torch.tensor([0, 1, 2, 1]), weights)
    of_classes = logits[:, :3].log_softmax(-1)
    by_hand = sum(weights[i] * of_classes[i, c] for i, c in enumerate((0, 1, 2, 1)))
    assert three == pytest.approx(-float(by_hand), rel=1e-6)


def test_label_tokens_learn_soft_labels(base: Path, tmp_path: Path) -> None:
    given = [
        LabelledSolution(f"Ana has {i} pens.", (THREE_STEPS[i % 2],), ((0.8, 0.3)[i % 2],))
        for i in range(48)
    ]
    rule = LabelRule("prm", head=HEADS["label_token_2"])
    small = ("learning_rate=0.01", "batch_size=4", "epochs=12", "engine.device=cpu")
    config = train_config(rule, str(base), tmp_path / "prm", small)
    train_file(given, rule, config, tmp_path / "prm", SilentProgress(), where="f")
    with open_reward_model(tmp_path / "prm") as scorer:
        scores = scorer.score([(s.question, s.steps) for s in given[:4]])
    assert [p for (p,) in scores] == pytest.approx([0.8, 0.3] * 2, abs=0.1)


def test_a_launched_training_is_the_same(base: Path, tmp_path: Path) -> None:
    """The head travels in the job's file."""
    from glore.training.job import _carry_out
    from glore.training.launch import as_json

    head = HEADS["label_token_3"]
    examples = [dataclasses.replace(e, labels=(2, 1)) for e in tiny.step_examples()]
    folders = {}
    for name in ("here", "job"):
        folders[name] = tmp_path / name / "prm"
        (tmp_path / name).mkdir()
    setup = TrainingSetup(
        out_dir=folders["here"],
        work_dir=tmp_path / "here" / "work",
        seed=0,
        progress=SilentProgress(),
        device="cpu",
        notes=((NOTE, note_of(GloreLayout(PLAIN), None, head).decode()),),
    )
    train_step_classifier(base, examples, tiny.settings(epochs=1), setup, head)
    job = {
        "kind": "steps",
        "base": str(base),
        "settings": tiny.settings(epochs=1).model_dump(mode="json"),
        "setup": {
            "out_dir": str(folders["job"]),
            "work_dir": str(tmp_path / "job" / "work"),
            "log_dir": None,
            "seed": 0,
            "device": "cpu",
            "notes": [list(note) for note in setup.notes],
        },
        "head": dataclasses.asdict(head),
        "layout": None,
    }
    (tmp_path / "job" / "job.json").write_text(json.dumps(job))
    lines = (json.dumps(as_json(e)) + "\n" for e in examples)
    (tmp_path / "job" / "examples.jsonl").write_text("".join(lines))
    _carry_out(tmp_path / "job")
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders.values()]
    assert weights[0] == weights[1]


Words = st.text("abc+-?:é", min_size=1, max_size=3)


@given(
    st.sampled_from(["classes", "label_token"]),
    st.sampled_from([2, 3]),
    st.lists(Words, min_size=3, max_size=3, unique=True),
    st.sampled_from(["good", "bad"]),
)
def test_a_note_says_the_head(kind: str, n: int, words: list[str], neutral: str) -> None:
    head = StepHead(kind, n, tuple(words), neutral if n == 3 else "good")
    found = StepHead.of_note(json.loads(note_of(GloreLayout(), None, head)))
    assert (found.kind, found.n_classes, found.good_classes) == (kind, n, head.good_classes)
    assert not head.says_tokens or found.texts == head.texts


def test_what_is_no_head_is_refused_in_one_line(
    base: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    for make, said in (
        (lambda: StepHead("lm"), "classes or label_token"),
        (lambda: StepHead("classes", 4), "got 4"),
        (lambda: StepHead("classes", 3, neutral="left out"), "counts as good or bad"),
        (lambda: StepHead("label_token", 3, ("+", "-")), "as many different label tokens"),
        (lambda: StepHead("label_token", 2, ("+", "+")), "different label tokens"),
        (lambda: LabelRule("orm", head=HEADS["classes_3"]), "no answer is neutral"),
        (lambda: LabelRule("contrastive", head=HEADS["label_token_2"]), "leave out --head"),
        (lambda: LabelRule("prm", neutral="missing", head=HEADS["classes_3"]), "no third class"),
        (lambda: step_head("classes", 2, "yes no", "good"), "--head label_token"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            make()
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="no single token 'wrong'"):
        train(base, tmp_path / "words", StepHead("label_token", 2, ("right", "wrong")))
    for tokens in ("+", "+ - ?", "+ +"):
        with pytest.raises(ValidationError, match="two different texts"):
            RewardModelSettings(label_tokens=tokens)
    note = {"layout": "glore", "label_tokens": {"bad": "-", "great": "+"}}
    (tmp_path / NOTE).write_text(json.dumps(note))
    with pytest.raises(ModelError, match="must name bad, good"):
        noted_head(tmp_path, "x")
    assert noted_layout(trained["label_token_3"], "x") == GloreLayout()


@pytest.mark.parametrize(
    ("labels", "threshold", "said"),
    [
        ((True, False), None, "no step is neutral"),
        ((0.5, NEUTRAL), None, "1 steps have soft labels"),
        ((True, NEUTRAL), None, "1 good and 0 bad steps"),
    ],
)
def test_three_classes_need_labels_of_all(
    labels: tuple[object, ...], threshold: float | None, said: str, base: Path, tmp_path: Path
) -> None:
    rule = LabelRule("prm", threshold, head=HEADS["classes_3"])
    config = train_config(rule, str(base), tmp_path / "prm", ("engine.device=cpu",))
    solution = LabelledSolution("Q", ("a", "b"), labels)
    with pytest.raises(DataError, match=said):
        train_file([solution], rule, config, tmp_path / "prm", SilentProgress(), where="f")


def test_the_commands_train_and_score_three_classes(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prm800k.jsonl"
    write_solutions(file, of_three(), "prm800k")
    small = ("learning_rate=0.01", "batch_size=4", "epochs=16", "engine.device=cpu")
    options = ("--head", "label_token", "--classes", "3", "--label-tokens", "+ - :")
    output = ("--base", str(base), "--output", str(tmp_path / "prm"), "--held-out", "0.2")
    done = CliRunner().invoke(app, ["train", "prm", str(file), *output, *options, *small])
    assert done.exit_code == 0, done.output
    assert " neutral" in done.output
    scores = {}
    for neutral in ("good", "bad"):
        out = tmp_path / f"{neutral}.jsonl"
        target = ("--model", str(tmp_path / "prm"), "--output", str(out), "--neutral", neutral)
        done = CliRunner().invoke(app, ["score", str(file), *target, "engine.device=cpu"])
        assert done.exit_code == 0, done.output
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        scores[neutral] = [p for row in rows for p in row["scores"]]
    for (i, good), bad in zip(enumerate(scores["good"]), scores["bad"], strict=True):
        assert (good > 0.5, bad > 0.5) == ((True, True), (False, False), (True, False))[i % 3]
    again = ("--base", str(base), "--output", str(tmp_path / "x"), "--classes", "3")
    done = CliRunner().invoke(app, ["train", "orm", str(file), *again])
    assert done.exit_code == 2
    assert "no answer is neutral" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_reward_models_of_a_run_have_the_head_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pretend(monkeypatch)
    config = config_of(tmp_path)
    reward = {**config.reward.model_dump(), "head": "label_token", "label_tokens": "yes no"}
    config = RunConfig.model_validate({**config.model_dump(), "reward": reward})
    run_stages(build_stages(config), config)
    expected = StepHead("label_token", 2, ("yes", "no"))
    assert {world.heads[name] for name in ("orm", "balanced_orm", "sorm")} == {expected}
    for name in ("orm", "sorm"):
        done = read_done(config.run_dir / "stages" / name)
        assert done is not None
        assert done.settings["reward.label_tokens"] == "yes no"
    usual = RunConfig.model_validate({**config.model_dump(), "reward": config_of(tmp_path).reward})
    states = {p.name: p.state for p in plan_stages(build_stages(usual), usual)}
    assert (states["samples"], states["orm"], states["sorm"]) == ("reused", "computed", "computed")


@pytest.mark.parametrize("architecture", ["gemma3", "phi3"])
def test_every_kind_of_language_model_can_become_a_reward_model(
    architecture: str, tmp_path: Path
) -> None:
    """transformers has no token classifier for Gemma 3."""
    base = tmp_path / "base"
    torch.manual_seed(0)
    lm = tiny_lm(architecture)
    lm.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    model = new_step_model(base)
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        body = lm(ids, output_hidden_states=True).hidden_states[-1]
        expected = model.eval().score(body)
        assert torch.allclose(model(ids).logits, expected, atol=1e-5)
    examples = [
        StepExample(("w5 w6 ",), ("w7 w8 ", f"w{n} "), (True, n % 2 == 0), (True, True))
        for n in range(10, 26)
    ]
    setup = TrainingSetup(
        out_dir=tmp_path / "rm",
        work_dir=tmp_path / "work",
        log_dir=None,
        seed=0,
        progress=SilentProgress(),
        device="cpu",
    )
    train_step_classifier(base, examples, tiny.settings(epochs=1), setup, BINARY)
    settings = EngineSettings(device="cpu")
    items = [("w5", ("w7 w8", "w10")), ("w5 w6", ("w7 w8", "w11", "w12"))]
    with StepScorer(tmp_path / "rm", settings) as scorer:
        assert scorer.backend.startswith("paged")
        found = scorer.score(items)
    slow = StepScorer.of(
        load_step_model(tmp_path / "rm"), load_tokenizer(tmp_path / "rm"), backends=("fallback",)
    )
    for got, wanted in zip(found, slow.score(items), strict=True):
        assert got == pytest.approx(wanted, abs=1e-5)
    card = (tmp_path / "rm" / "README.md").read_text(encoding="utf-8")
    assert ("AutoModelForTokenClassification" in card) == (architecture != "gemma3")
    assert "glore.open_reward_model" in card
    with open_reward_model(tmp_path / "rm", "glore", settings) as opened:
        assert len(opened.score(items)[1]) == 3
