"""Reward models written for other libraries: what AutoModelForTokenClassification reads, at the
places that `encode_solutions` names, is what we score.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

import glore
from glore.config import PromptSettings
from glore.digests import check_digests
from glore.errors import ModelError
from glore.model_cards import model_card
from glore.models import save_model
from glore.progress import SilentProgress
from glore.reward_models.layouts import note_of
from glore.reward_models.open import open_reward_model
from glore.step_layouts.apart import GloreLayout, TrlLayout
from glore.training.examples import TrainReport
from glore.training.finetune import train_step_classifier
from glore.training.training_setup import TrainingSetup
from parity.test_reward_models import ITEMS, NAMED
from support.reward_checkpoints import save_checkpoint
from support.step_tokenizers import step_tokenizer
from support.tiny_models import llama_like
from support.tiny_training import save_base, settings, step_examples

LINEAR = ("skywork", "math_shepherd", "rlhflow", "trl")


def save_ours(folder: Path, notes: dict[str, bytes] | None = None) -> Path:
    """A random reward model of our layout, saved as a training saves it."""
    tokenizer = step_tokenizer("smollm2")
    torch.manual_seed(3)
    config = llama_like(len(tokenizer), 32, 48, 2)["llama"]()
    config.max_position_embeddings = 1024
    config.num_labels, config.id2label = 2, {0: "bad", 1: "good"}
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6.0)
    report = TrainReport(1, 0, 1, 1, 0.5, 1.0)
    card = model_card(folder.name, "A test.", "steps", PromptSettings(), report, 0)
    save_model(model, tokenizer, folder, card, notes or {})
    return folder


@torch.inference_mode()
def read_elsewhere(folder: Path, layout: str | None = None) -> list[tuple[float, ...]]:
    """Scores with transformers alone, at the places that we name."""
    model: Any = AutoModelForTokenClassification.from_pretrained(folder).eval()
    scores = []
    for solution in glore.encode_solutions(folder, ITEMS, layout):
        logits = model(torch.tensor([solution.token_ids])).logits[0, solution.positions]
        scores.append(tuple(float(p) for p in logits.softmax(-1)[:, 1]))
    return scores


@pytest.mark.parametrize("layout", LINEAR)
def test_an_export_scores_as_its_source_here_and_elsewhere(layout: str, tmp_path: Path) -> None:
    source = save_checkpoint(layout, tmp_path / "source")
    named = layout if layout in NAMED else None
    written = glore.export_reward_model(source, tmp_path / "written", named)
    with open_reward_model(source, named) as scorer:
        expected = scorer.score(ITEMS)
    with open_reward_model(written) as scorer:  # it says its layout itself
        assert scorer.layout.name == layout
        got = scorer.score(ITEMS)
    for a, b, c in zip(expected, got, read_elsewhere(written), strict=True):
        assert b == pytest.approx(a, abs=2e-5)
        assert c == pytest.approx(a, abs=2e-5)
    check_digests(written)
    names = {path.name for path in written.iterdir()}
    assert {"model.safetensors", "README.md", "step_layout.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".py"))]
    config = json.loads((written / "config.json").read_text())
    assert config["architectures"][0].endswith("ForTokenClassification")
    assert "auto_map" not in config
    assert config["id2label"] == {"0": "bad", "1": "good"}


def test_our_own_folders_are_read_elsewhere_as_they_are(tmp_path: Path) -> None:
    folder = save_ours(tmp_path / "sorm")
    with open_reward_model(folder) as scorer:
        expected = scorer.score(ITEMS)
    for a, b in zip(expected, read_elsewhere(folder), strict=True):
        assert b == pytest.approx(a, abs=2e-5)
    card = (folder / "README.md").read_text()
    for part in ("## Data and recipe", "## Training", "## Metrics", "not good for", "pooling"):
        assert part in card


def test_a_model_that_was_trained_on_chats_says_so_where_it_goes(tmp_path: Path) -> None:
    chat = PromptSettings(style="chat", steps="paragraph")
    folder = save_ours(tmp_path / "chat", {"step_layout.json": note_of(GloreLayout(), chat)})
    written = glore.export_reward_model(folder, tmp_path / "written")
    plain = save_ours(tmp_path / "plain")
    with (
        open_reward_model(written) as noted,
        open_reward_model(plain, prompt=chat) as asked,
        open_reward_model(plain) as other,
    ):
        scores = noted.score(ITEMS)
        assert scores == asked.score(ITEMS)
        assert scores != other.score(ITEMS)
    (folder / "step_layout.json").write_text('{"layout": "glore", "prompt": {"style": "x"}}')
    with pytest.raises(ModelError, match="has changed since it was written"):
        open_reward_model(folder)
    (folder / "glore-digests.json").unlink()
    with pytest.raises(ModelError, match=r"its step_layout.json can't be used"):
        open_reward_model(folder)


def test_a_training_leaves_its_note_and_its_card(tmp_path: Path) -> None:
    prompt = PromptSettings(steps="paragraph")
    setup = TrainingSetup(
        out_dir=tmp_path / "sorm",
        work_dir=tmp_path / "work",
        seed=0,
        progress=SilentProgress(),
        device="cpu",
        about=("data: four steps",),
        notes=(("step_layout.json", note_of(GloreLayout(), prompt).decode()),),
    )
    base = save_base(tmp_path / "base")
    train_step_classifier(base, step_examples(), settings(max_steps=1), setup)
    with open_reward_model(setup.out_dir) as scorer:
        assert isinstance(scorer.layout, GloreLayout)
        assert scorer.layout.prompt.steps.end == "\n\n"
        assert len(scorer.score([("Ana has 12 pens.", ("Ana : 12 + 7 = 19", "#### 19"))])[0]) == 2
    card = (setup.out_dir / "README.md").read_text()
    assert "- data: four steps" in card
    assert f"started from {base}" in card


def test_what_can_not_be_exported_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint("qwen", tmp_path / "source")
    with pytest.raises(ModelError, match=r"two layers .* vLLM serves that folder as it is"):
        glore.export_reward_model(source, tmp_path / "written")
    ours = save_ours(tmp_path / "sorm")
    with pytest.raises(ModelError, match="is there already"):
        glore.export_reward_model(ours, source)


def test_places_of_a_server_are_those_that_we_read(tmp_path: Path) -> None:
    folder = save_ours(tmp_path / "sorm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for layout in (GloreLayout(), TrlLayout()):
        for solution, (_, steps) in zip(
            glore.encode_solutions(folder, ITEMS, layout), ITEMS, strict=True
        ):
            assert len(solution.positions) == len(steps)
            ends = [tokenizer.decode([solution.token_ids[at]]) for at in solution.positions]
            assert all(end.endswith("\n") for end in ends)
