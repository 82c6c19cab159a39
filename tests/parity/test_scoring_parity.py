"""Step scores: batched against one by one, and against one forward pass per prefix."""

from __future__ import annotations

import random

import pytest
import torch

from glore.engines.local.scorer import StepScorer
from glore.errors import EngineError
from glore.prompts import solve_segments
from support.tiny_models import VOCAB, tiny_step_model, tiny_tokenizer


def solutions(n: int) -> list[tuple[str, tuple[str, ...]]]:
    rng = random.Random(1)

    def words(longest: int) -> str:
        return " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(rng.randint(1, longest)))

    return [(words(15), tuple(words(6) for _ in range(rng.randint(0, 5)))) for _ in range(n)]


def drafts(n_questions: int, n_each: int) -> list[tuple[str, tuple[str, ...]]]:
    """Several solutions of each question, some of which begin alike."""
    rng = random.Random(2)
    items = []
    for _ in range(n_questions):
        question, *steps = (
            " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(rng.randint(1, 20)))
            for _ in range(7)
        )
        for _ in range(n_each):
            kept = rng.randint(0, 4)
            items.append((question, (*steps[:kept], *rng.sample(steps, rng.randint(1, 3)))))
    return items


def slow_scores(architecture: str, items: list[tuple[str, tuple[str, ...]]]) -> list[list[float]]:
    """One forward pass a prefix, through transformers' own attention."""
    model, tokenizer = tiny_step_model(architecture), tiny_tokenizer()
    scores = []
    for question, steps in items:
        parts = [
            [
                t
                for s in solve_segments(question, steps[: i + 1])
                for t in tokenizer(s, add_special_tokens=False)["input_ids"]
            ]
            for i in range(len(steps))
        ]
        with torch.inference_mode():
            scores.append(
                [
                    float(torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)[1])
                    for ids in parts
                ]
            )
    return scores


@pytest.mark.parametrize("backend", ["native", "paged", "fallback"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral", "gemma2"])
def test_scores_equal_one_pass_per_prefix(architecture: str, backend: str) -> None:
    items = solutions(8) + drafts(3, 4)
    scorer = StepScorer.of(
        tiny_step_model(architecture), tiny_tokenizer(), scoring_tokens=256, backends=(backend,)
    )
    if backend == "native" and scorer.backend != "native":
        pytest.skip("the compiled forward pass does not know this model, or there is no C compiler")
    scores = scorer.score(items)
    assert [len(s) for s in scores] == [len(steps) for _, steps in items]
    assert () in scores
    for got, expected in zip(scores, slow_scores(architecture, items), strict=True):
        assert got == pytest.approx(expected, abs=1e-5)
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
