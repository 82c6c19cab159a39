"""A model whose outputs are no numbers: nothing is drawn, scored or chosen from them, and the error
names model and item.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.local.scorer import StepScorer
from glore.engines.protocol import Request, SamplingParams, check_scores
from glore.engines.scripted import ScriptedEngine
from glore.errors import EngineError, ModelError
from glore.refiner import Refiner
from support.tiny_models import tiny_lm, tiny_step_model, tiny_tokenizer

POISON = 59
BACKENDS = [("native",), ("paged",), ("fallback",)]


def poisoned(model: torch.nn.Module, value: float = math.nan) -> torch.nn.Module:
    """What reads the word w59 gives NaN."""
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = value
    return model


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("backends", BACKENDS, ids=lambda backends: backends[0])
def test_nothing_is_drawn(backends: tuple[str, ...], temperature: float) -> None:
    engine = TorchEngine.of(poisoned(tiny_lm()), tiny_tokenizer(), max_rows=4, backends=backends)
    params = SamplingParams(temperature=temperature, max_new_tokens=3)
    with pytest.raises(
        EngineError,
        match="'LlamaForCausalLM': the model gave NaN or infinite logits, so nothing can be drawn",
    ):
        list(engine.run([Request("q", (f"w5 w{POISON} w6",), (1, 2), params)]))


def test_nothing_is_drawn_whatever_is_read(tmp_path: Path) -> None:
    model = tiny_lm()
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
        model.model.layers[0].mlp.up_proj.weight.fill_(3e38)
    model.save_pretrained(tmp_path / "broken")
    tiny_tokenizer().save_pretrained(tmp_path / "broken")
    engine = TorchEngine(tmp_path / "broken", EngineSettings(device="cpu", max_rows=4))
    with pytest.raises(EngineError, match=r"broken': the model gave NaN or infinite logits"):
        list(engine.run([Request("q", ("w5",), (1,), SamplingParams(max_new_tokens=3))]))


@pytest.mark.parametrize("backends", BACKENDS, ids=lambda backends: backends[0])
def test_nothing_is_scored(backends: tuple[str, ...]) -> None:
    scorer = StepScorer.of(poisoned(tiny_step_model()), tiny_tokenizer(), backends=backends)
    fine = ("w4 w5", ("w6", "w7"))
    assert len(scorer.score([fine])[0]) == 2
    with pytest.raises(
        ModelError,
        match=r"^the reward model 'LlamaForTokenClassification' gave nan for step \d "
        r"of a solution of 'w8 w9'",
    ) as caught:
        scorer.score([fine, ("w8 w9", ("w6", f"w{POISON}"))])
    assert "engine.dtype=float32" in str(caught.value)
    assert len(scorer.score([fine])[0]) == 2, "it goes on with other solutions"


@pytest.mark.parametrize("backends", BACKENDS, ids=lambda backends: backends[0])
@pytest.mark.parametrize("bias", [math.inf, -math.inf])
def test_infinities_that_softmax_would_hide(backends: tuple[str, ...], bias: float) -> None:
    model = tiny_step_model()
    with torch.no_grad():
        model.score.weight[0] = 3e38 * math.copysign(1, bias)
    scorer = StepScorer.of(model, tiny_tokenizer(), backends=backends)
    with pytest.raises(ModelError, match="gave nan for step 1"):
        scorer.score([("w4 w5", ("w6", "w7"))])


class Constant:
    """A reward model of somebody else's."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        return [self.values for _ in items]


@pytest.mark.parametrize(
    ("orm", "sorm", "message"),
    [
        (
            (0.5, math.nan),
            (0.5, 0.5),
            "the reward model 'ORM' gave nan for step 2 of a solution of 'How many\\?'",
        ),
        ((0.5, 0.5), (math.inf, 0.5), "the reward model 'SORM' gave inf for step 1"),
        ((0.5, 0.5), (0.5, -0.1), "the reward model 'SORM' gave -0.1 for step 2"),
        ((0.5, 1.5), (0.5, 0.5), "the reward model 'ORM' gave 1.5 for step 2"),
        ((0.5,), (0.5, 0.5), "the ORM gave 1 scores for 2 steps of 'How many\\?'"),
    ],
)
def test_a_refiner_chooses_nothing_from_what_is_no_probability(
    orm: tuple[float, ...], sorm: tuple[float, ...], message: str
) -> None:
    student = ScriptedEngine(lambda request, seed: "1 + 1 = 3\n#### 3")
    with pytest.raises(ModelError, match=message):
        Refiner(student, student, Constant(*orm), Constant(*sorm))("How many?")


def test_probabilities_pass() -> None:
    check_scores("m", "q", (0.0, 0.5, 1.0))
    check_scores("m", "q", ())
