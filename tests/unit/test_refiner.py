"""Inference, every intermediate value against a scripted student, refiner and reward models."""

from __future__ import annotations

from pathlib import Path

import pytest

from glore.config import EngineSettings
from glore.engines.protocol import Request
from glore.errors import DataError, EngineError, ModelError, RunError
from glore.prompts import MAX_QUESTION_CHARS, PromptLayout
from glore.refiner import RefineOptions, Refiner
from support.fakes import FunctionEngine

SCORES = {
    "good": 0.9,
    "fine": 0.7,
    "bad": 0.3,
    "#### 3": 0.2,
    "#### 10": 0.8,
    "#### 11": 0.6,
    "#### 1,000": 0.95,
}


class TableScorer:
    """The probability after a step is looked up by its text."""

    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        return [tuple(SCORES[step] for step in steps) for _, steps in items]


def _refiner(draft: str, **options: object) -> tuple[Refiner, FunctionEngine, FunctionEngine]:
    def refine(request: Request, seed: int) -> str:
        return "good\n#### 10" if request.id.endswith("/local_sorm") else "fine\n#### 11"

    student, refiner = FunctionEngine(lambda request, seed: draft), FunctionEngine(refine)
    return (
        Refiner(student, refiner, TableScorer(), TableScorer(), RefineOptions(**options)),
        student,
        refiner,
    )  # type: ignore[arg-type] # test options


def test_every_value_on_the_way() -> None:
    refiner, student, engine = _refiner("good\nbad\n#### 3")
    result = refiner("  How many? ")
    assert result.question == "How many?"
    assert result.draft == ("good", "bad", "#### 3")
    assert result.orm_scores == result.sorm_scores == (0.9, 0.3, 0.2)
    assert result.needs_work
    assert result.marked_step == 1
    assert result.candidate_kinds == ("draft", "global", "local")
    assert result.candidates == (
        ("good", "bad", "#### 3"),
        ("fine", "#### 11"),
        ("good", "#### 10"),
    )
    assert result.candidate_scores == (0.2, 0.6, 0.8)
    assert (result.chosen, result.answer) == (2, "10")
    assert result.n_tokens == 5 + 2 * 4
    assert result.seconds > 0
    assert student.requests[0].params.temperature == 0
    prompts = {r.id: "".join(r.segments) for r in engine.requests}
    assert "good\n[BAD] bad\n" in prompts["q0/local_sorm"]
    assert "[BAD] good\nbad\n" in prompts["q0/global"]


def test_given_drafts_are_refined_and_cost_nothing() -> None:
    refiner, student, _ = _refiner("good\nbad\n#### 3")
    drawn = refiner("How many?")
    drafts = [("good", "bad", "#### 3"), ("fine", "#### 1,000")]
    first, second = refiner.refine(["How many?", "And now?"], drafts)
    assert len(student.requests) == 1
    assert (first.candidates, first.chosen) == (drawn.candidates, drawn.chosen)
    assert first.n_tokens == drawn.n_tokens - 5
    assert (second.draft, second.chosen, second.answer) == (drafts[1], 0, "1000")
    with pytest.raises(ValueError, match="shorter"):
        refiner.refine(["How many?", "And now?"], drafts[:1])


def test_without_a_bad_step_there_is_no_local_candidate() -> None:
    result = _refiner("good\n#### 1,000")[0]("q")
    assert not result.needs_work
    assert result.marked_step is None
    assert result.candidate_kinds == ("draft", "global")
    assert (result.chosen, result.answer) == (0, "1000")


def test_an_empty_draft_is_its_own_only_candidate() -> None:
    result = _refiner("")[0]("q")
    assert result.needs_work
    assert (result.candidate_kinds, result.candidate_scores, result.answer) == (
        ("draft",),
        (0.0,),
        None,
    )


def test_options_reach_their_places() -> None:
    refiner, _, engine = _refiner(
        "good\nbad\n#### 3", threshold=0.1, aggregate="min", mark_global=False, max_new_tokens=7
    )
    result = refiner("q")
    assert (result.needs_work, result.marked_step) == (False, None)
    assert result.candidate_scores == (0.2, 0.6)
    assert "[BAD]" not in "".join(engine.requests[0].segments)
    assert engine.requests[0].params.max_new_tokens == 7


def test_a_batch_keeps_its_order_and_no_question_is_fine() -> None:
    refiner, _, _ = _refiner("good\n#### 3")
    assert [r.question for r in refiner.refine(["a", "b", "c"])] == ["a", "b", "c"]
    assert refiner.refine([]) == []


def test_one_question_is_not_taken_for_a_batch_of_letters() -> None:
    refiner, student, _ = _refiner("good\n#### 3")
    with pytest.raises(TypeError, match="several questions, got the string 'How many'"):
        refiner.refine("How many")
    assert student.requests == []


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("  \n", "is empty; give"),
        ("x" * (MAX_QUESTION_CHARS + 1), "has 20,001 characters .* shorten it"),
        ("\ud800 x", r"holds half a Unicode character .*ud800 x'; write the text again as UTF-8"),
    ],
)
def test_bad_questions_are_refused_before_anything_is_sampled(question: str, message: str) -> None:
    refiner, student, _ = _refiner("good")
    with pytest.raises(DataError, match=f"^the question {message}"):
        refiner(question)
    with pytest.raises(DataError, match=f"^question 1 {message}"):
        refiner.refine(["fine", question])
    assert student.requests == []


@pytest.mark.parametrize("question", [5, None, b"x"])
def test_what_is_no_string_is_no_question(question: object) -> None:
    with pytest.raises(
        TypeError,
        match=f"the question must be a string, got {question!r}; give the text of a problem",
    ):
        _refiner("good")[0](question)  # type: ignore[arg-type]  # the mistake under test


def test_a_closed_refiner_refuses_and_leaves_what_it_was_given_open() -> None:
    refiner, student, engine = _refiner("good\n#### 3")
    with refiner:
        refiner("q")
    with pytest.raises(EngineError, match="this Refiner is closed and can't be used"):
        refiner("q")
    refiner.close()
    assert not student.is_closed
    assert not engine.is_closed


@pytest.mark.parametrize("missing", [None, "sorm"])
def test_what_it_opened_is_closed_also_when_a_model_is_missing(
    missing: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FunctionEngine] = []
    asked: list[object] = []

    def open_one(
        path: object, settings: EngineSettings, *layout: PromptLayout, logs_warning: bool = True
    ) -> FunctionEngine:
        if path == missing:
            raise ModelError(f"no model {path}")
        opened.append(FunctionEngine(lambda request, seed: ""))
        asked.append(settings)
        return opened[-1]

    monkeypatch.setattr("glore.engines.open.open_engine", open_one)
    monkeypatch.setattr("glore.engines.open.open_scorer", open_one)
    settings = EngineSettings(kind="vllm", gpu_memory=0.8)

    def make() -> Refiner:
        return Refiner.from_models("student", "refiner", "orm", "sorm", engine=settings)

    if missing:
        with pytest.raises(ModelError, match="no model sorm"):
            make()
        assert len(opened) == 3
    else:
        with make():
            assert len(opened) == 4
            assert not any(engine.is_closed for engine in opened)
        assert [s.gpu_memory for s in asked[:2]] == [0.4, 0.4]  # type: ignore[attr-defined]
    assert all(engine.is_closed for engine in opened)


def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no config\.yaml"):
        Refiner.from_run(tmp_path)
    (tmp_path / "config.yaml").write_text("name: x\n")
    (tmp_path / "models" / "student").mkdir(parents=True)
    with pytest.raises(RunError, match="has no refiner and no orm and no sorm yet"):
        Refiner.from_run(tmp_path)
