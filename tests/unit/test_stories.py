"""The built-in task: the same everywhere, as its settings say, and with an oracle that knows a true
step from a false one.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import StoriesSettings, TaskSettings
from glore.errors import ConfigError, DataError
from glore.records import Problem
from glore.tasks import OracleTask, ScratchTask, open_task
from glore.tasks.stories import Stories, base_documents, generate, vocabulary
from glore.tasks.stories import task as stories_task
from glore.tasks.stories.generate import draw_story
from glore.tasks.stories.oracle import is_true
from glore.tasks.stories.perturb import perturbed_story
from glore.tasks.stories.render import render_story
from glore.tasks.stories.solve import derive_all, solve
from glore.tasks.stories.story import CHOICES, states

SMALL = {"n_train": 60, "n_dev": 20, "n_test": 40}
TINY = StoriesSettings(
    people=(2, 2), steps=(1, 1), max_number=10, extra_relations=0, distractors=0, shuffled=0
)
VALUES = {"Ana": 19, "Tom": 12, "Bo": 4, "Ana B": 19}
seeds = st.integers(0, 2**32)


def stories(seed: int = 0, merge: bool = False, **knobs: object) -> Stories:
    return Stories(StoriesSettings.model_validate(SMALL | knobs), seed, merge)


def people_of(problem: Problem) -> dict[str, int]:
    return {
        name: number
        for name, number in json.loads(problem.meta)["values"].items()
        if " " not in name
    }


def true(step: str, asked: tuple[str, ...] = ("Ana",), answer: str = "19") -> bool:
    return is_true(
        step, VALUES, ("Ana", "Tom", "total") if step.startswith("Total") else asked, answer
    )


def test_the_same_seed_gives_the_same_stories_and_another_one_others() -> None:
    first, again, other = stories(1), stories(1), stories(2)
    for split in ("train", "dev", "test"):
        assert first.problems(split) == again.problems(split)
        assert not {p.question for p in first.problems(split)} & {
            p.question for p in other.problems(split)
        }
    documents = [
        [stories(1).base_document(random.Random(5), share) for share in (0.0, 0.5, 1.0)]
        for _ in range(2)
    ]
    assert documents[0] == documents[1]


def test_more_training_questions_leave_the_others_as_they_are() -> None:
    few, many = stories(), stories(n_train=90)
    assert many.problems("train")[:60] == few.problems("train")
    assert (many.problems("dev"), many.problems("test")) == (
        few.problems("dev"),
        few.problems("test"),
    )


def test_splits_share_no_question() -> None:
    drawn = Stories(TINY.model_copy(update={"n_train": 1500, "n_dev": 500, "n_test": 500}), 0)
    problems = [p for split in ("train", "dev", "test") for p in drawn.problems(split)]
    assert len(problems) == 2500
    assert len({p.question for p in problems}) == len({p.id for p in problems}) == len(problems)


def test_the_settings_open_as_a_task_with_an_oracle_and_base_text() -> None:
    opened = open_task(
        TaskSettings(kind="stories", stories=StoriesSettings(**SMALL), merge_answer_line=True),
        seed=3,
    )
    assert isinstance(opened, OracleTask)
    assert isinstance(opened, ScratchTask)
    assert opened.problems("test") == stories(3, merge=True).problems("test")


@pytest.mark.parametrize(
    ("people", "steps"),
    [
        ((2, 2), (1, 1)),
        ((2, 2), (2, 2)),
        ((3, 5), (2, 4)),
        ((4, 4), (3, 3)),
        ((8, 8), (1, 2)),
        ((2, 8), (1, 8)),
    ],
)
def test_people_and_steps_are_as_many_as_asked(
    people: tuple[int, int], steps: tuple[int, int]
) -> None:
    for problem in stories(people=people, steps=steps, worked_share=1, extra_relations=0).problems(
        "train"
    ):
        assert people[0] <= len(people_of(problem)) <= people[1]
        # Without redundant relations there is one way only, so the worked solution has the length
        # that was drawn.
        assert problem.solution is not None
        derived = {
            step.partition(":")[0]
            for step in problem.solution
            if not step.startswith(("Check", "####"))
        }
        assert steps[0] <= len(derived) <= steps[1]


def test_where_all_are_needed_every_person_is_worked_out() -> None:
    for problem in stories(
        people=(2, 4), steps=(2, 5), extra_relations=0, all_needed=True, worked_share=1
    ).problems("train"):
        assert problem.solution is not None
        assert {step.partition(":")[0] for step in problem.solution} >= set(people_of(problem))


def test_numbers_distractors_relations_and_order_follow_the_settings() -> None:
    for limit in (10, 60):
        values = [
            v for p in stories(max_number=limit).problems("train") for v in people_of(p).values()
        ]
        assert 1 <= min(values) < limit / 4 < 0.75 * limit < max(values) <= limit
    sentences = {n: [p.question.count(".") for p in plain(distractors=n)] for n in (0, 3)}
    assert set(sentences[0]) == {4}
    assert set(sentences[3]) == {4, 5, 6, 7}
    assert {p.question.count(".") for p in plain(extra_relations=3)} > {4, 5, 6}
    ordered = [told_in_order(p) for p in plain(shuffled=0)]
    assert all(ordered)
    assert 0.05 < sum(told_in_order(p) for p in plain(shuffled=1)) / 60 < 0.6


def told_in_order(problem: Problem) -> bool:
    """Whether no sentence but those about the first person stands before that person's."""
    first = next(iter(people_of(problem)))
    return first in problem.question.split(".")[0] and not re.search(
        r"as many|what|together|Together|times|half|twice", problem.question.split(".")[0]
    )


def test_numbers_to_find_are_as_many_as_asked_and_always_needed() -> None:
    for n in (0, 1, 2):
        drawn = stories(
            unknown=(n, n), people=(3, 4), steps=(2, 4), worked_share=1, extra_relations=0
        )
        for problem in drawn.problems("train"):
            hidden = re.findall(r"(?:If|Had) ([A-Z][a-z]+) ", problem.question)
            assert len(hidden) == n
            derived = {step.partition(":")[0] for step in problem.solution or ()}
            assert set(hidden) <= derived


def offered(problem: Problem) -> list[list[int]]:
    """The numbers that a story offers for each to be found."""
    lists = re.findall(r" (?:has|owns either) ([A-E\d, ]+ or [B-E] \d+) ", problem.question)
    return [[int(n) for n in re.findall(r"\d+", text)] for text in lists]


def test_numbers_to_choose_from_hold_the_true_one_and_all_can_be_tried() -> None:
    drawn = stories(unknown=(1, 1), options=(2, 4), max_number=20)
    lengths: Counter[int] = Counter()
    places: Counter[int] = Counter()
    for problem in drawn.problems("train"):
        (numbers,) = offered(problem)
        lengths[len(numbers)] += 1
        assert len(set(numbers)) == len(numbers)
        assert min(numbers) >= 1
        assert max(numbers) <= 20
        name = re.search(r"(?:If|Had) ([A-Z][a-z]+) ", problem.question)
        assert name
        places[numbers.index(people_of(problem)[name[1]])] += 1
        (said,) = (reading for reading in json.loads(problem.meta)["values"] if " " in reading)
        assert said == f"{name[1]} {CHOICES[numbers.index(people_of(problem)[name[1]])]}"
    assert set(lengths) == {2, 3, 4}
    assert set(places) >= {0, 1, 2}
    for problem in stories(unknown=(1, 1), options=(2, 4), max_number=20, told_second=1.0).problems(
        "train"
    ):
        name = re.search(r"(?:If|Had) ([A-Z][a-z]+) ", problem.question)
        assert name
        assert offered(problem)[0][1] == people_of(problem)[name[1]]
    assert not any(offered(problem) for problem in stories(unknown=(1, 1)).problems("train"))
    with pytest.raises(
        ValueError, match=r"options must be two numbers with 0 <= fewest <= most <= 5, got \[3, 2\]"
    ):
        StoriesSettings(options=(3, 2))


@given(seeds)
def test_a_slip_among_options_takes_another_one_of_them(seed: int) -> None:
    rng = random.Random(seed)
    settings = StoriesSettings(
        people=(2, 3), steps=(2, 3), unknown=(1, 1), options=(3, 3), max_number=20
    )
    story = draw_story(rng, settings, (2, 3))
    wrong = perturbed_story(rng, story)
    (fact,) = (fact for fact in story.facts if fact.kind == "unknown")
    assert len(fact.options) == 3
    assert story.values[fact.new] in fact.options
    assert wrong is None or wrong.values[fact.new] in fact.options


@given(seeds)
def test_a_slipped_story_gives_a_draft_that_is_wrong_from_the_slip_on_where_it_matters(
    seed: int,
) -> None:
    rng = random.Random(seed)
    settings = StoriesSettings(people=(2, 4), steps=(2, 4), unknown=(1, 1))
    story = draw_story(rng, settings, (2, 4))
    wrong = perturbed_story(rng, story)
    if wrong is None:
        return
    truth = [
        is_true(step, story.values, story.asked, str(story.answer)) for step in solve(rng, wrong)
    ]
    assert list(wrong.values) == list(story.values)
    changed = {name for name in story.values if wrong.values[name] != story.values[name]}
    if not truth[-1]:
        assert changed
        assert not all(truth[:-1])


def plain(**knobs: object) -> list[Problem]:
    return stories(
        **({"people": (4, 4), "steps": (1, 4), "distractors": 0, "extra_relations": 0} | knobs)
    ).problems("train")


def test_the_worked_share_is_kept_and_only_in_training() -> None:
    for share, low, high in ((0.0, 0, 0), (0.3, 60, 120), (1.0, 300, 300)):
        drawn = stories(worked_share=share, n_train=300)
        assert low <= sum(p.solution is not None for p in drawn.problems("train")) <= high
        assert all(p.solution is None for split in ("dev", "test") for p in drawn.problems(split))


@pytest.mark.parametrize("merge", [False, True])
def test_every_reference_solution_is_right_and_every_step_of_it_true(merge: bool) -> None:
    drawn = stories(
        merge=merge,
        worked_share=1,
        n_train=200,
        people=(2, 6),
        steps=(1, 5),
        extra_relations=3,
        distractors=3,
    )
    lengths = set()
    for problem in drawn.problems("train"):
        assert problem.solution is not None
        assert drawn.grade(problem, problem.solution).verdict == "right"
        assert all(drawn.step_truth(problem, problem.solution)), problem
        assert "####" in problem.solution[-1]
        assert problem.solution[-1].startswith("####") != merge
        lengths.add(len(problem.solution))
    assert len(lengths) >= 4


@given(seeds)
def test_every_fact_is_true_and_every_way_and_order_leads_to_the_answer(seed: int) -> None:
    rng = random.Random(seed)
    story = draw_story(
        rng, StoriesSettings(people=(2, 6), steps=(1, 6), extra_relations=3, max_number=40), (1, 6)
    )
    for fact in story.facts:
        a, b, c = (*(story.values[name] for name in fact.people), 0, 0)[:3]
        if fact.kind in ("changes", "unknown"):
            start, end = (fact.k, a) if fact.kind == "changes" else (a, fact.k)
            assert states(start, fact.changes)[-1] == end
            assert all(change.k == story.values[change.of] for change in fact.changes if change.of)
            continue
        left, right = {
            "given": (a, fact.k),
            "more": (a, b + fact.k),
            "times": (a, b * fact.k),
            "pair": (a + b, fact.k),
            "sum": (a, b + c),
        }[fact.kind]
        assert left == right, fact
        assert len(set(fact.people)) == len(fact.people)
    assert story.answer > 0
    for steps in (solve(rng, story), derive_all(rng, story)):
        assert all(is_true(step, story.values, story.asked, str(story.answer)) for step in steps), (
            steps
        )
        known = {f.people[0] for f in story.facts if f.kind == "given"}
        for step in steps:
            label, _, rest = step.partition(":")
            assert set(re.findall(r"[A-Z][a-z]+", rest)) - {label} <= known, (
                "a step uses what is known by then only"
            )
            known.add(label)
    told = render_story(rng, story, StoriesSettings(), ask_everyone=seed % 2 == 0)
    assert set(story.values) <= set(re.findall(r"[A-Z][a-z]+", told))


@pytest.mark.parametrize(
    "step",
    [
        "Ana: Tom + 7 = 12 + 7 = 19",
        "Ana: 12 + 7 = 19",
        "Ana: 7 + Tom = 7 + 12 = 19",
        "Ana: Tom + Bo + 3 = 12 + 4 + 3 = 19",
        "Ana: Tom * 2 - 5 = 19",
        "Ana: 23 - Bo = 23 - 4 = 19",
        "Ana: (Tom - 5) * 2 + 5 = 14 + 5 = 19",
        "Ana: 38 / 2 = 19",
        "Ana: -(-19) = 19",
        "Ana:12+7=19",
        "Tom: Ana - 7 = 19 - 7 = 12",
        "Ana and Tom: Ana + Tom = 19 + 12 = 31",
        "Tom and Ana: 12 + 19 = 31",
        "Ana and Tom and Bo: 31 + Bo = 35",
        "Bo: 1 + 3 = 4",
        "#### 19",
        "Ana: 12 + 7 = 19 #### 19",
        "Ana: Tom 12 + 7 = 19",
        "Check: Ana B 19 - 7 = 12, 12 = 12",
        "Tom: Ana B 19 - 7 = 12",
        "Ana: 12 + 8 = 20, 20 - 1 = 19",
        "Tom: ? + 7 - Bo 4 = 15, 12 + 7 = 19, 19 - 4 = 15, ? = 12",
        "Total: Ana 19 + Tom 12 = 31",
        "Tom: ? + 7 = 19",
        "Tom: ? + 7 - Bo 4 = 15",
    ],
)
def test_any_true_way_in_any_order_is_true(step: str) -> None:
    assert true(step)


NUMERAL = "9" * 13
BOMBS = [
    "(" * 90 + "19" + ")" * 90,
    "-" * 150 + "19",
    "9" * 190,
    f"{NUMERAL} - {NUMERAL}",
    "19" + " " * 300,
    "*".join(["999999999999"] * 14),
    "(" * 190,
]


@pytest.mark.parametrize(
    "step",
    [
        "Ana: Tom + 7 = 12 + 7 = 18",
        "Ana: Tom + 6 = 12 + 6 = 18",
        "Ana: Tom + 7 = 12 + 8 = 19",
        "Ana: Bo + 7 = 12 + 7 = 19",
        "Ana: Tom - 7 = 12 + 7 = 19",
        "Tom: 12 + 7 = 19",
        "Ana and Tom: 19 + 12 = 30",
        "Ana and Ana: 19 + 19 = 38",
        "Zoe: 12 + 7 = 19",
        "Zoe and Ana: 12 + 7 = 19",
        "Ana: Zoe + 7 = 19",
        "Difference: Ana - Tom = 7",
        "#### 18",
        "#### Ana",
        "####",
        "#### 19 #### 19",
        "Ana: 12 + 7 = 19 #### 18",
        "Ana: 12 + 6 = 18 #### 19",
        "Ana has 19 pens. #### 19",
        "",
        ":",
        "=",
        "Ana",
        "Ana:",
        "Ana: 18",
        "Check: 19",
        "Check: Ana A 19 - 7 = 12, 12 = 12",
        "Check: B 19 - 7 = 12, 12 = 12",
        "Check: Ana 12 + 7 = 19",
        "Check: 19 = Tom 12 + 8",
        "Check: ? = 19",
        "Check and Ana: 19 = 19",
        "Ana: = 19",
        "Ana: 19 =",
        "Ana: 12 + = 19",
        "Ana: 12 7 = 19",
        "Ana: + 19 = 19",
        "Ana: (19 = 19",
        "Ana: 19) = 19",
        "Ana: () = 19",
        "Ana: 19 / 0 = 19",
        "Ana: 19 / (Tom - 12) = 19",
        "Ana: 19 ** 1 = 19",
        "Ana: 1e1 + 9 = 19",
        "Ana: 19.0 = 19",
        "Ana: __import__('os') = 19",
        "Ana: ²19 = 19",
        "I don't know",
        "[BAD] Ana: 12 + 7 = 19",
        "Ana: Tom 13 + 6 = 19",
        "Ana: Tom 12 + Bo 7 = 19",
        "Ana: 12 + 8 = 20, 20 - 2 = 18",
        "Ana: 12 + 8 = 21, 20 - 1 = 19",
        "Ana: 12 + 8 = 20, Tom = 12",
        "Tom: ? + 7 = 18, 12 + 7 = 19, ? = 12",
        "Tom: ? + 7 = 18",
        "Tom: ? + 7 = 19, 19 = 19",
        "Zoe: ? + 7 = 19",
        "Tom: ? + 7",
        "Ana: ?",
        "Ana: ? = ?",
        "Tom: ? + 7 = 19, 12 + 7 = 19, ? = 13",
        "Ana: 12 + 7 = 19,",
        "Ana: ? = 20",
        "Zoe: ? = ?",
        "Ana = 12 + 7 = 19",
        *(f"Ana: {bomb} = 20" for bomb in BOMBS),
        *(f"#### {bomb}0" for bomb in BOMBS),
    ],
)
def test_what_is_false_or_can_not_be_read_is_false_at_once(step: str) -> None:
    started = time.thread_time()  # the processor's, not the clock's: a busy machine doesn't fail it
    assert not true(step)
    assert time.thread_time() - started < 5, "the work isn't bounded"


def test_a_difference_is_one_only_where_it_is_asked_for() -> None:
    asked = ("Ana", "Tom", "difference")
    assert is_true("Difference: Ana - Tom = 19 - 12 = 7", VALUES, asked, "7")
    assert is_true("Difference: 19 - 12 = 7 #### 7", VALUES, asked, "7")
    assert not is_true("Difference: Tom - Ana = 12 - 19 = -7", VALUES, asked, "7")
    assert not is_true("Difference: 19 - 12 = 7", VALUES, ("Ana", "Tom", "total"), "31")


def test_redundant_relations_open_other_routes_and_all_of_them_are_true() -> None:
    def several(extra_relations: int) -> int:
        """How many of 30 stories can be worked out in more than one way (order aside)."""
        rng, found = random.Random(0), 0
        settings = StoriesSettings(people=(3, 5), steps=(2, 4), extra_relations=extra_relations)
        for _ in range(30):
            story = draw_story(rng, settings, settings.steps)
            routes = [derive_all(random.Random(i), story) for i in range(60)] + [
                solve(random.Random(i), story)[:-1] for i in range(12)
            ]
            assert all(
                is_true(step, story.values, story.asked, str(story.answer))
                for route in routes
                for step in route
            )
            found += len({frozenset(route) for route in routes[:60]}) > 1
        return found

    assert several(0) == 0
    assert several(3) > 10


@given(st.text(max_size=300))
def test_no_text_breaks_the_oracle(text: str) -> None:
    assert true(text) in (True, False)
    assert true(f"Ana: {text} = 19") in (True, False)


@given(seeds, st.data())
def test_another_number_anywhere_in_a_true_step_makes_it_false(
    seed: int, data: st.DataObject
) -> None:
    rng = random.Random(seed)
    story = draw_story(rng, StoriesSettings(people=(2, 5), steps=(1, 4)), (1, 4))
    step = data.draw(st.sampled_from(solve(rng, story)))
    spans = [m.span() for m in re.finditer(r"\d+", step)]
    start, end = data.draw(st.sampled_from(spans))
    other = data.draw(st.integers(0, 200).filter(lambda n: n != int(step[start:end])))
    changed = f"{step[:start]}{other}{step[end:]}"
    assert is_true(step, story.values, story.asked, str(story.answer))
    # `n * x` and `x / n` aside (x = 0 never occurs), no expression here has the same value for two
    # values of one of its numbers.
    assert not is_true(changed, story.values, story.asked, str(story.answer)), changed


@given(
    st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 50)), max_size=8), st.integers(0, 50)
)
def test_products_bind_closer_and_all_else_goes_from_left_to_right(
    tail: list[tuple[str, int]], head: int
) -> None:
    text = f"{head}" + "".join(f" {sign} {n}" for sign, n in tail)
    terms: list[Fraction] = [Fraction(head)]
    for sign, n in tail:
        if sign in "+-":
            terms.append(Fraction(n if sign == "+" else -n))
        else:
            terms[-1] *= Fraction(n) if sign == "*" else Fraction(1, n)
    value = sum(terms, Fraction(0))
    numerals = (
        f"{value.numerator} / {value.denominator}"
        if value >= 0
        else f"-{-value.numerator} / {value.denominator}"
    )
    assert true(f"Ana: {text} = 19") == (value == 19)
    readable = max(map(len, re.findall(r"\d+", numerals))) <= 12
    assert true(f"Ana: {text} - ({numerals}) + 19 = 19") == readable
    assert not true(f"Ana: {text} - ({numerals}) + 18 = 19")


def test_settings_that_no_story_meets_are_refused_when_the_task_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="steps must be two numbers"):
        StoriesSettings(people=(2, 2), steps=(4, 4))
    with pytest.raises(
        ValueError,
        match=r"unknown must be two numbers with 0 <= fewest <= most < the smallest number of "
        r"people, got \[0, 2\]",
    ):
        StoriesSettings(people=(2, 4), unknown=(0, 2))
    with pytest.raises(
        ValueError,
        match=r"unknown_changes must be two numbers with 1 <= fewest <= most <= 4, got \[0, 2\]",
    ):
        StoriesSettings(unknown_changes=(0, 2))
    monkeypatch.setattr(generate, "MAX_DRAWS", 5)
    rare = StoriesSettings(people=(2, 8), steps=(8, 8), max_number=10, extra_relations=3)
    with pytest.raises(
        ConfigError,
        match=r"none of 5 drawn stories has 8 to 8 steps for people=\[2, 8\], max_number=10; "
        r"widen steps",
    ):
        open_task(TaskSettings(stories=rare), seed=0)


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "NAMES", vocabulary.NAMES[:2])
    monkeypatch.setattr(generate, "ITEMS", vocabulary.ITEMS[:1])
    monkeypatch.setattr(generate, "PLAIN", 1.0)


@pytest.mark.usefixtures("few_words")
def test_questions_that_run_out_end_in_an_error_that_names_the_knobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stories_task, "MAX_REPEATS", 100)
    settings = TINY.model_copy(
        update={"unknown": (0, 0), "n_train": 100_000, "n_dev": 10, "n_test": 10}
    )
    with pytest.raises(
        DataError,
        match=r"only \d+ of 100000 train .* people=\[2, 2\], steps=\[1, 1\], max_number=10, "
        r"distractors=0; lower n_test",
    ):
        Stories(settings, 0).problems("train")


def test_base_documents_hold_no_dev_or_test_question_even_if_that_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = Stories(TINY.model_copy(update={"n_test": 3000}), 0)
    held = {f"Question: {p.question}\n" for split in ("dev", "test") for p in drawn.problems(split)}
    rng = random.Random(0)
    asked = [
        d[0][0]
        for d in (drawn.base_document(rng, i / 1500) for i in range(1500))
        if d[0][0].startswith("Question")
    ]
    assert len(asked) > 800
    assert not {text.partition("\n")[0] + "\n" for text in asked} & held
    question = drawn.problems("dev")[0].question
    monkeypatch.setattr(base_documents, "render_story", lambda *_, **__: question)
    with pytest.raises(DataError, match="none are left for the base model"):
        _ = [drawn.base_document(rng, 1.0) for _ in range(50)]


def test_base_documents_learn_only_what_follows_from_what_was_read() -> None:
    drawn, rng = (
        stories(people=(2, 5), steps=(1, 4), unknown=(0, 1), options=(0, 3)),
        random.Random(1),
    )
    kinds: Counter[str] = Counter()
    for i in range(4000):
        document = drawn.base_document(rng, i / 4000)
        read, learnt = (
            "".join(text for text, flag in document if flag == wanted) for wanted in (False, True)
        )
        assert document[0][1] is False
        mends_one = (
            learnt.count("\n") == 0 and "Draft:" in read
        )  # only which number it is is learnt there
        assert mends_one or learnt.endswith("\n")
        if not read.startswith("Question") and not document[1][1]:
            for (asked, _), (number, _) in zip(document[1::2], document[2::2], strict=True):
                assert offered_in(document[0][0])[CHOICES.index(asked.split()[-1])] == int(number)
            kinds["look up"] += 1
            continue
        if not read.startswith("Question"):
            starts = [i for i, (_, flag) in enumerate(document) if not flag]
            for start, end in pairwise([*starts, len(document)]):
                kinds[
                    held_drill(document[start][0], [text for text, _ in document[start + 1 : end]])
                ] += 1
            continue
        steps = [text for text, flag in document if flag]
        if mends_one:
            assert len(steps) == 1
            tried, other = re.findall(r"Check: \w+( \w+)?( \d+)", read)[0], steps[0]
            assert "".join(tried) not in ("", other)
            assert not tried[0] or offered_in(read)[CHOICES.index(other.split()[0])] == int(
                other.split()[1]
            )
            kinds["mend one"] += 1
            continue
        assert all(step.count("\n") == 1 and step.endswith("\n") for step in steps)
        if steps[-1] in ("Right\n", "Wrong\n"):
            assert "Right\n" not in steps[steps.index("Wrong\n") :] if "Wrong\n" in steps else True
            unequal = [
                step
                for step in steps
                if (two := re.search(r", (\d+) = (\d+)\n$", step)) and two[1] != two[2]
            ]
            assert not unequal or steps[-1] == "Wrong\n"
            kinds[
                "check unequal"
                if unequal
                else "check Wrong"
                if "Wrong\n" in steps
                else "check Right"
            ] += 1
        elif "Draft:" in read:
            same = [text for text, flag in document if not flag][1:] == [*steps, "Answer:\n"]
            assert same or "[BAD]" in read or "####" in read
            kinds["copy" if same else "mend"] += 1
        else:
            kinds["solve" if all(flag for _, flag in document[1:]) else "go on"] += 1
    assert len(kinds) == 18, kinds
    assert min(kinds.values()) > 4, kinds


def test_the_base_model_reads_of_no_habit_of_the_stories() -> None:
    knobs = {
        "people": (2, 2),
        "steps": (2, 3),
        "unknown": (1, 1),
        "options": (2, 3),
        "max_number": 20,
    }
    plain, habit = (stories(**knobs, told_second=share) for share in (0.0, 1.0))
    a, b = random.Random(2), random.Random(2)
    assert [plain.base_document(a, i / 50) for i in range(50)] == [
        habit.base_document(b, i / 50) for i in range(50)
    ]


def offered_in(text: str) -> list[int]:
    """The numbers offered in a drill's first line."""
    return [int(n) for n in re.findall(r"\d+", text.partition("\n")[0])]


def held_drill(asked: str, learnt: list[str]) -> str:
    """What kind of drill this is, held to be true."""

    def is_so(line: str, **values: int) -> bool:
        return is_true(line.strip(), values, (), "0")

    if learnt[-1] not in ("Right\n", "Wrong\n"):
        (found,) = learnt
        if "?" not in asked:
            assert is_so(f"Check: {asked}{found}"), asked
            return "sum"
        *_, said, label = asked.split("\n")
        place, _, number = found.strip().rpartition(" ")
        name = label.removeprefix("Check: ")
        assert is_so(said, **{name: int(number)}), asked
        if not place:
            return "find"
        assert offered_in(asked)[CHOICES.index(place)] == int(number)
        return "find offered"
    right = learnt[-1] == "Right\n"
    if len(learnt) == 1:
        compared = asked.startswith("Check")
        assert is_so(asked if compared else f"Check: {asked}") == right, asked
        return f"{'compare' if compared else 'judge'} {right}"
    rest, _ = learnt
    sums, _, same = rest.rpartition(",")
    *_, said, read = asked.split("\n")
    tokens = (read + rest).removeprefix("Check: ").split()
    name, place, number = (
        tokens[0],
        tokens[1:2] if tokens[1] in CHOICES else [],
        next(t for t in tokens if t.isdigit()),
    )
    assert not place or offered_in(asked)[CHOICES.index(*place)] == int(number)
    tried = {name: int(number), " ".join((name, *place)): int(number)}
    assert is_so(read + sums, **tried), rest
    assert is_so(said, **tried) == is_so(f"Check:{same}") == right, (asked, rest)
    return f"try {right}"


def test_base_documents_get_harder() -> None:
    drawn = stories(people=(5, 5), steps=(4, 4), distractors=3, max_number=30)

    def mean_length(progress: float) -> float:
        rng = random.Random(0)
        texts = [drawn.base_document(rng, progress)[0][0] for _ in range(300)]
        told = [len(t) for t in texts if t.startswith("Question")]
        return sum(told) / len(told)

    early, middle, late = mean_length(0.25), mean_length(0.4), mean_length(0.9)
    assert early < middle < late
    assert late > 1.3 * early
