"""Reward models of other layouts: the scores of tiny random ones against the same computed by hand,
with plain transformers and torch.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from glore.config import EngineSettings
from glore.errors import ConfigError, EngineError, ModelError
from glore.reward_models.open import open_reward_model
from glore.step_layouts.whole_texts import QwenLayout
from support.published_layouts import PUBLISHED
from support.reward_checkpoints import TOKENIZERS, save_checkpoint
from support.tiny_models import llama_like

FOREIGN = tuple(TOKENIZERS)
NAMED = ("math_shepherd", "rlhflow")
"""Language models: their layout must be named."""
ITEMS = [
    (
        "How many apples do they have?",
        (
            "Step 1: Ann has 3 + 4 = 7 apples.",
            "Step 2: Bob has 7 - 2 = 5 apples",
            "Step 3: The answer is: 12.",
        ),
    ),
    ("Is 7 - 2 more than 3?", ("Step 1: 7 - 2 = 5.",)),
    ("How many apples do they have?", ("Step 1: Ann has 3 + 4 = 7 apples.", "Step 2: It is 7.")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {layout: save_checkpoint(layout, base / layout) for layout in FOREIGN}


def name_of(layout: str) -> str | None:
    return layout if layout in NAMED else None


def hidden_states(folder: Path, ids: list[int]) -> torch.Tensor:
    """The last hidden states [T, H] of the backbone, whose weights are loaded by name."""
    body = AutoModel.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    weights = load_file(folder / "model.safetensors")
    body.load_state_dict(
        {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    )
    return body.eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]


@torch.inference_mode()
def by_hand(
    layout: str,
    folder: Path,
    question: str,
    steps: tuple[str, ...],
    at: tuple[list[int], list[int]] | None = None,
) -> list[float]:
    """`at`: other ids and places than those of the layout's authors."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids, places = at or PUBLISHED[layout](tokenizer, question, steps)
    if layout in NAMED:
        model = AutoModelForCausalLM.from_pretrained(folder)
        logits = model(torch.tensor([ids])).logits[0, places]
        if layout == "math_shepherd":
            good, bad = tokenizer.encode("+ -")[1:]
        else:
            good, bad = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]
        return [float(p) for p in logits[:, [good, bad]].softmax(dim=-1)[:, 0]]
    weights = load_file(folder / "model.safetensors")
    h = hidden_states(folder, ids)[places]
    if layout == "qwen":
        inner = torch.relu(h @ weights["score.0.weight"].T + weights["score.0.bias"])
        logits = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    elif layout == "skywork":
        values = h @ weights["v_head.summary.weight"][0] + weights["v_head.summary.bias"][0]
        return [1 / (1 + math.exp(-float(v))) for v in values]
    else:
        logits = h @ weights["score.weight"].T + weights["score.bias"]
    return [float(p) for p in logits.softmax(dim=-1)[:, 1]]


@pytest.mark.parametrize("layout", FOREIGN)
def test_scores_are_those_computed_by_hand(layout: str, folders: dict[str, Path]) -> None:
    folder = folders[layout]
    with open_reward_model(folder, name_of(layout)) as scorer:
        got = scorer.score(ITEMS)
        alone = [scorer.score([item])[0] for item in ITEMS]
    for item, values, single in zip(ITEMS, got, alone, strict=True):
        expected = by_hand(layout, folder, *item)
        assert values == pytest.approx(expected, abs=2e-5)
        assert values == pytest.approx(single, abs=2e-5)
    flat = [p for values in got for p in values]
    assert max(flat) - min(flat) > 0.02


@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 0.15), ("float16", 0.02)])
@pytest.mark.parametrize("layout", FOREIGN)
def test_narrow_scores_are_near(
    layout: str, dtype: str, rounding: float, folders: dict[str, Path]
) -> None:
    with open_reward_model(folders[layout], name_of(layout)) as scorer:
        exact = scorer.score(ITEMS)
    settings = EngineSettings(dtype=dtype)
    with open_reward_model(folders[layout], name_of(layout), settings) as scorer:
        rough = scorer.score(ITEMS)
    for a, b in zip(exact, rough, strict=True):
        assert b == pytest.approx(a, abs=rounding)


def test_a_language_model_must_name_its_layout(folders: dict[str, Path]) -> None:
    for layout in NAMED:
        with pytest.raises(ModelError, match=r"language model .* name it \(math_shepherd or rlhf"):
            open_reward_model(folders[layout])
    with pytest.raises(ConfigError, match="must be one of glore, trl"):
        open_reward_model(folders["trl"], "prm")


def test_a_layout_that_does_not_fit_the_files_is_refused(folders: dict[str, Path]) -> None:
    for layout in ("trl", "skywork", "qwen", "glore"):
        with pytest.raises(ModelError, match=r"is no step classifier: it has no weights for score"):
            open_reward_model(folders["rlhflow"], layout)
    with pytest.raises(ModelError, match="has no single token '<extra_1>'"):
        open_reward_model(folders["qwen"], QwenLayout("<extra_1>")).score(ITEMS)


def test_a_head_is_read_whatever_the_layout_of_its_inputs(folders: dict[str, Path]) -> None:
    with open_reward_model(folders["qwen"], "trl") as scorer:
        got = scorer.score(ITEMS[:1])[0]
    tokenizer: Any = AutoTokenizer.from_pretrained(folders["qwen"])
    ids, places = PUBLISHED["trl"](tokenizer, *ITEMS[0])
    assert got == pytest.approx(by_hand("qwen", folders["qwen"], *ITEMS[0], at=(ids, places)))


def copied(folders: dict[str, Path], layout: str, to: Path) -> Path:
    return shutil.copytree(folders[layout], to / layout)


def test_pickles_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders, "skywork", tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    for path in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(ModelError, match=r"pickled .*pytorch_model.bin.* convert them to safe"):
            open_reward_model(path)


@pytest.mark.parametrize(
    ("layout", "name", "value", "said"),
    [
        ("qwen", "score.0.bias", None, r"lacks 'score.0.bias'"),
        ("qwen", "score.4.weight", torch.zeros(2), r"has more .* 'score.4.weight'"),
        ("qwen", "score.2.weight", torch.zeros(3, 32), r"score.2.weight is .*\(3, 32\), not"),
        ("qwen", "score.2.bias", torch.zeros(2, dtype=torch.int8), "type I8"),
        ("skywork", "v_head.summary.bias", torch.tensor([math.nan]), "is not finite"),
        ("skywork", "model.norm.weight", None, "no weights for model.norm.weight"),
        ("skywork", "other.weight", torch.zeros(2), "hold more weights: other.weight"),
    ],
)
def test_damaged_heads_are_refused(
    layout: str,
    name: str,
    value: torch.Tensor | None,
    said: str,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = copied(folders, layout, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop(name, None)
    if value is not None:
        weights[name] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said):
        open_reward_model(folder, layout)


def test_logits_that_are_more_than_a_linear_head_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["rlhflow"])
    config = llama_like(len(tokenizer), 32, 48, 2)["gemma2"]()
    config.final_logit_softcapping = 0.5
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(50)
    model.save_pretrained(tmp_path / "capped")
    tokenizer.save_pretrained(tmp_path / "capped")
    with pytest.raises(ModelError, match="more than a linear head"):
        open_reward_model(tmp_path / "capped", "rlhflow")


def test_a_note_in_the_folder_names_the_layout(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders, "trl", tmp_path)
    note = {"layout": "trl", "separator": "\n\n"}
    (folder / "step_layout.json").write_text(json.dumps(note))
    with open_reward_model(folder) as noted, open_reward_model(folders["trl"]) as plain:
        assert noted.score(ITEMS) != plain.score(ITEMS)
        assert noted.layout.separator == "\n\n"
    for wrong in ({"layout": "prm"}, {"layout": "trl", "separator": 3}, {}):
        (folder / "step_layout.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=r"its step_layout.json can't be used"):
            open_reward_model(folder)


def test_a_closed_scorer_and_a_long_solution_are_refused(folders: dict[str, Path]) -> None:
    scorer = open_reward_model(folders["qwen"])
    with pytest.raises(EngineError, match="context is 1024"):
        scorer.score([("w", ("word " * 800,))])
    scorer.close()
    with pytest.raises(EngineError, match="closed"):
        scorer.score(ITEMS)
