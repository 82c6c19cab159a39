"""The cascade with scripted models: a solution's steps say how the ORM scores them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.cascade import Cascaded, CascadeModels, CascadeQuestion, run_cascade
from glore.decisions import Decisions
from glore.engines.protocol import Request, SamplingParams
from glore.errors import EngineError, ModelError
from glore.prompts import PLAIN
from glore.refiner import RefineOptions, Refiner
from glore.rerank import AGGREGATES
from glore.studies.budget.spent import until_accepted
from support.fakes import FunctionEngine, solution

Texts = dict[str, str]
"""Kind of a solution (`draft`, `global`, `sample1`, …) → its text."""


class StepsSayScores:
    """The probability after a step is the number that it is."""

    def __init__(self) -> None:
        self.n_batches = 0

    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        self.n_batches += 1
        return [tuple(float(step.split()[0]) for step in steps) for _, steps in items]


class World:
    """Models that answer each question with its own texts."""

    def __init__(self, questions: list[Texts], decisions: Decisions | None = None) -> None:
        self.texts = {f"question {n} ends": texts for n, texts in enumerate(questions)}
        self.student, self.refiner = FunctionEngine(self._text), FunctionEngine(self._text)
        self.orm = StepsSayScores()
        self.decisions = decisions or Decisions()

    def _text(self, request: Request, seed: int) -> str:
        prompt = "".join(request.segments)
        texts = next(texts for question, texts in self.texts.items() if question in prompt)
        if request.id.endswith("/global"):
            return texts["global"]
        return texts["draft" if request.params.temperature == 0 else f"sample{seed}"]

    def answers(
        self, questions: list[str], most: int, temperature: float = 1.0
    ) -> dict[str, Cascaded]:
        greedy = SamplingParams(temperature=0)
        samples = SamplingParams(temperature=temperature)
        seeds = tuple(range(1, most + 1))
        asked = [CascadeQuestion(q, greedy, 0, samples, seeds) for q in questions]
        models = CascadeModels(self.student, self.refiner, self.orm, self.decisions, 0, PLAIN)
        return {questions[c.index]: c for c in run_cascade(models, asked)}


def made(result: Cascaded) -> list[object]:
    return [(a.kind, a.completion.text, a.scores) for a in result.attempts]


def kinds(result: Cascaded) -> list[str]:
    return [a.kind for a in result.attempts]


@pytest.mark.parametrize(
    ("draft", "refined", "samples", "kinds_made", "chosen"),
    [
        ("0.9", "0.9", ["0.9"], ["draft"], 0),
        ("0.5", "0.51", ["0.9"], ["draft", "global"], 1),  # at the threshold is not above it
        ("0.1", "0.2", ["0.3", "0.3", "0.7", "0.9"], ["draft", "global", *["sample"] * 3], 4),
        ("0.1", "0.4", ["0.3", "0.4"], ["draft", "global", "sample", "sample"], 1),
        ("", "0.9", ["0.4", "0.6"], ["draft", "sample", "sample"], 2),
        ("", "0.9", ["0", ""], ["draft", "sample", "sample"], 1),  # any steps beat none
        ("0.2", "", [], ["draft", "global"], 0),
        ("", "0.9", [], ["draft"], 0),
    ],
)
def test_it_goes_on_until_the_orm_accepts(
    draft: str, refined: str, samples: list[str], kinds_made: list[str], chosen: int
) -> None:
    texts = {"draft": draft, "global": refined}
    texts |= {f"sample{k}": text for k, text in enumerate(samples, start=1)}
    world = World([texts])
    (result,) = world.answers(list(world.texts), len(samples)).values()
    assert (kinds(result), result.chosen) == (kinds_made, chosen)
    assert world.student.n_drawn == len([kind for kind in kinds_made if kind != "global"])
    assert world.refiner.n_drawn == kinds_made.count("global")
    assert result.n_tokens == sum(len(a.steps) + 1 for a in result.attempts)


Probability = st.sampled_from(["0", "0.2", "0.4", "0.5", "0.6", "0.8", "1"])
Text = st.lists(Probability, max_size=3).map("\n".join)
Question = st.tuples(Text, Text, st.lists(Text, min_size=4, max_size=4))


@given(
    st.lists(Question, min_size=1, max_size=4),
    st.sampled_from(sorted(AGGREGATES)),
    st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    st.integers(0, 4),
)
def test_it_is_what_the_study_measures(
    drawn: list[tuple[str, str, list[str]]], aggregate: str, threshold: float, most: int
) -> None:
    decisions = Decisions(threshold=threshold, aggregate=aggregate)
    named = [
        {"draft": d, "global": g} | {f"sample{k}": s for k, s in enumerate(samples, start=1)}
        for d, g, samples in drawn
    ]
    world = World(named, decisions)
    questions = list(world.texts)
    together = world.answers(questions, most)
    assert set(together) == set(questions)
    for n, question in enumerate(questions):
        result, texts = together[question], named[n]
        alone = world.answers([question], most)[question]
        assert (alone.chosen, made(alone)) == (result.chosen, made(result))
        names = ["draft", *["global"] * bool(texts["draft"])]
        names += [f"sample{k}" for k in range(1, most + 1)]
        attempts = [solution(texts[name], name=name) for name in names]
        scores = [tuple(float(step) for step in a.steps) for a in attempts]
        for attempt in attempts:  # each in turn is the right one, so `right` says which was chosen
            marked = [
                solution(texts[a.id], "right" if a is attempt else "wrong", a.id) for a in attempts
            ]
            tokens, right = until_accepted(marked, scores, decisions, len(marked))
            assert tokens + len(result.attempts) == result.n_tokens  # the end is a token here
            assert right == (names.index(attempt.id) == result.chosen)


def test_a_round_is_one_batch_of_each_engine() -> None:
    world = World(
        [
            {"draft": "0.9"},
            {"draft": "0.1", "global": "0.9"},
            {"draft": "0.1", "global": "0.1", "sample1": "0.1", "sample2": "0.9"},
            {"draft": "", "sample1": "0.1", "sample2": "0.3"},
        ]
    )
    order = list(world.answers(list(world.texts), 2))
    assert order == [f"question {n} ends" for n in (0, 1, 3, 2)]  # as they are answered
    assert world.orm.n_batches == 4
    assert (world.student.n_drawn, world.refiner.n_drawn) == (4 + 2 + 2, 2)


def test_greedy_samples_would_be_the_draft_and_are_not_drawn() -> None:
    world = World([{"draft": "0.1", "global": "0.3", "sample1": "0.9"}])
    (result,) = world.answers(list(world.texts), 8, temperature=0).values()
    assert (kinds(result), result.chosen) == (["draft", "global"], 1)


def test_scores_that_are_none_are_refused() -> None:
    world = World([{"draft": "7"}])
    with pytest.raises(ModelError, match=r"'ORM' gave 7.0 for step 1 .* no probability"):
        world.answers(list(world.texts), 1)


def _refiner(world: World, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> Refiner:
    made = RefineOptions(max_new_tokens=40, temperature=temperature, top_p=top_p, top_k=top_k)

    class Never:
        def score(self, items: object) -> list[tuple[float, ...]]:
            raise AssertionError("the SORM has nothing to say here")

    return Refiner(world.student, world.refiner, world.orm, Never(), made)


def test_the_refiner_answers_by_a_cascade() -> None:
    texts = ["0.2\n0.3 #### 3", "0.3\n0.4 #### 4", "0.1\n0.2 #### 5", "0.2\n0.8 #### 6"]
    world = World([{}])
    world.texts = {"": {}}
    samples = iter(texts[2:])
    world.student = FunctionEngine(
        lambda request, seed: next(samples) if request.params.temperature else texts[0]
    )
    world.refiner = FunctionEngine(lambda request, seed: texts[1])
    (found,) = _refiner(world, temperature=0.6, top_p=0.9, top_k=7).cascade(["  How many? "])
    assert (found.problem_id, found.question) == ("q0", "How many?")
    assert found.candidate_kinds == ("draft", "global", "sample", "sample")
    assert found.candidate_scores == (0.3, 0.4, 0.2, 0.8)
    assert (found.chosen, found.answer, found.needs_work) == (3, "6", True)
    assert (found.orm_scores, found.sorm_scores, found.marked_step) == ((0.2, 0.3), (), None)
    assert found.n_tokens == 4 * 5
    draft, *drawn = (request.params for request in world.student.requests)
    assert draft == SamplingParams(temperature=0, max_new_tokens=40)
    assert drawn == [SamplingParams(0.6, 0.9, 7, 40)] * 2
    (refinement,) = world.refiner.requests
    assert "[BAD] 0.2" in "".join(refinement.segments)
    assert refinement.params == draft


def test_samples_depend_on_the_question_and_the_seed_alone() -> None:
    def sampled(questions: list[str], **more: int) -> dict[str, list[int]]:
        world = World([{}])
        world.student = world.refiner = FunctionEngine(lambda request, seed: "0.1")
        _refiner(world).cascade(questions, most=3, **more)
        seeds: dict[str, list[int]] = {}
        for request in world.student.requests:
            if request.params.temperature:
                seeds.setdefault("".join(request.segments), []).extend(request.seeds)
        return seeds

    together = sampled(["a", "b"])
    (alone,) = sampled(["b"]).items()
    assert together[alone[0]] == alone[1]
    every = [seed for seeds in together.values() for seed in seeds]
    assert len(set(every)) == 6
    assert not set(every) & {s for seeds in sampled(["a", "b"], seed=1).values() for s in seeds}


def test_no_samples_and_no_questions_are_fine_and_fewer_than_none_are_not() -> None:
    world = World([{"draft": "0.1", "global": "0.1"}])
    refiner = _refiner(world)
    assert refiner.cascade([]) == []
    (found,) = refiner.cascade(list(world.texts), most=0)
    assert (found.candidate_kinds, found.chosen) == (("draft", "global"), 0)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        refiner.cascade(["q"], most=-1)
    with pytest.raises(TypeError, match="cascade takes several questions"):
        refiner.cascade("q")
    refiner.close()
    with pytest.raises(EngineError, match="closed"):
        refiner.cascade(["q"])
