"""Step scores: batched against one by one, and against one forward pass per prefix."""

from __future__ import annotations

import random

import pytest
import torch

from glore.errors import EngineError
from glore.prompts import solve_segments
from glore.sampling.scoring import StepScorer
from tiny_models import VOCAB, tiny_step_model, tiny_tokenizer


def solutions(n: int) -> list[tuple[str, tuple[str, ...]]]:
    rng = random.Random(1)

    def words(longest: int) -> str:
        return " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(rng.randint(1, longest)))

    return [(words(15), tuple(words(6) for _ in range(rng.randint(0, 5)))) for _ in range(n)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral", "gemma2"])
def test_batched_scores_equal_one_pass_per_prefix(architecture: str) -> None:
    model, tokenizer = tiny_step_model(architecture), tiny_tokenizer()
    items = solutions(12)
    scores = StepScorer.of(model, tokenizer, scoring_tokens=256).score(items)
    assert [len(s) for s in scores] == [len(steps) for _, steps in items]
    assert () in scores
    for (question, steps), got in zip(items, scores, strict=True):
        for i in range(len(steps)):
            ids = [t for s in solve_segments(question, steps[: i + 1]) for t in tokenizer(s, add_special_tokens=False)["input_ids"]]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert got[i] == pytest.approx(float(torch.softmax(logits, -1)[1]), abs=1e-5)
    values = [p for s in scores for p in s]
    assert max(values) - min(values) > 0.1


def test_alone_equals_together_in_any_order() -> None:
    scorer = StepScorer.of(tiny_step_model(), tiny_tokenizer(), scoring_tokens=10_000)
    items = solutions(12)
    together = scorer.score(items)
    backwards = scorer.score(items[::-1])[::-1]
    for item, a, b in zip(items, together, backwards, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert scorer.score([item])[0] == pytest.approx(a, abs=1e-5)
    assert scorer.score([]) == []


def test_a_solution_longer_than_the_context_is_refused() -> None:
    scorer = StepScorer.of(tiny_step_model(), tiny_tokenizer())
    with pytest.raises(EngineError, match=r"solution 1 .* context is 128"):
        scorer.score([("w3", ("w4",)), ("w3", tuple(["w4 w5 w6"] * 60))])
