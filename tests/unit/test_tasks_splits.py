"""Splits share no question, and follow from the questions alone."""

from __future__ import annotations

import random

import pytest

from glore.errors import DataError
from glore.records import Problem
from glore.tasks.data.splits import Loaded, Splits, make_splits, question_key


def loaded(
    question: str, split: str = "train", answer: str = "1", name: str | None = None
) -> Loaded:
    return Loaded(
        Problem(name or f"{split}-{question}", question, answer, None, split),
        f"{split}.jsonl, line {question}",
    )


def questions(splits: Splits, split: str) -> list[str]:
    return [problem.question for problem in splits.problems[split]]


TRAIN = [loaded(f"q{i}") for i in range(50)]
TEST = [loaded(f"t{i}", "test") for i in range(20)]


def test_case_space_and_unicode_form_make_no_new_question() -> None:
    assert question_key("How  many\nＡpples?") == question_key(" how many apples? ")
    assert question_key("2 apples?") != question_key("3 apples?")


def test_dev_is_held_out_by_content_whatever_the_order() -> None:
    splits = make_splits({"train": TRAIN, "test": TEST}, n_dev=10)
    assert len(splits.problems["dev"]) == 10
    assert {p.split for p in splits.problems["dev"]} == {"dev"}
    assert sorted(questions(splits, "train") + questions(splits, "dev")) == sorted(
        f"q{i}" for i in range(50)
    )
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert set(questions(make_splits({"train": shuffled, "test": TEST}, n_dev=10), "dev")) == set(
        questions(splits, "dev")
    )


def test_a_dev_file_is_used_as_it_is() -> None:
    splits = make_splits({"train": TRAIN, "dev": [loaded("d", "dev")], "test": TEST}, n_dev=10)
    assert [len(splits.problems[s]) for s in ("train", "dev", "test")] == [50, 1, 20]


def test_smaller_subsets_are_contained_in_larger_ones_and_keep_the_file_order() -> None:
    large = make_splits({"train": TRAIN, "test": TEST}, n_dev=10, max_train=20, max_test=9)
    small = make_splits({"train": TRAIN, "test": TEST}, n_dev=10, max_train=5, max_test=9)
    assert set(questions(small, "train")) < set(questions(large, "train"))
    assert len(questions(small, "train")) == 5
    assert (
        questions(small, "test")
        == questions(large, "test")
        == sorted(questions(large, "test"), key=lambda q: int(q[1:]))
    )
    assert questions(small, "dev") == questions(large, "dev")


def test_one_file_is_cut_by_content() -> None:
    splits = make_splits({"all": TRAIN}, n_dev=10)
    assert [len(splits.problems[s]) for s in ("train", "dev", "test")] == [30, 10, 10]


def test_an_overlap_is_an_error_with_both_places_or_leaves_the_less_protected_split() -> None:
    given = {
        "train": [*TRAIN, loaded("T3")],
        "dev": [loaded("q7", "dev"), loaded("t4", "dev"), loaded("d", "dev")],
        "test": TEST,
    }
    with pytest.raises(
        DataError,
        match=r"dev.jsonl, line t4: this question is also in test.jsonl, line t4, "
        r"but dev and test must not share",
    ):
        make_splits(given, n_dev=10)
    splits = make_splits(given, n_dev=10, overlap="drop")
    assert questions(splits, "dev") == ["q7", "d"]
    assert len(questions(splits, "test")) == 20
    assert set(questions(splits, "train")) == {f"q{i}" for i in range(50)} - {"q7"}
    assert (splits.n_overlaps, splits.n_duplicates) == (3, 0)


def test_duplicates_are_dropped_and_contradictions_refused() -> None:
    same = [*TRAIN, loaded("Q1", name="again")]
    assert make_splits({"train": same, "test": TEST}, n_dev=10).n_duplicates == 1
    other = [*TRAIN, loaded("Q1", name="again", answer="2")]
    with pytest.raises(
        DataError,
        match=r"line Q1: the same question as in train.jsonl, line q1 with another answer",
    ):
        make_splits({"train": other, "test": TEST}, n_dev=10)
    assert make_splits({"train": other, "test": TEST}, n_dev=10, overlap="drop").n_duplicates == 1


def test_ids_must_differ_across_splits() -> None:
    with pytest.raises(
        DataError,
        match=r"test.jsonl, line t: the field 'id' is 'train-q1' as in train.jsonl, line q1",
    ):
        make_splits({"train": TRAIN, "test": [loaded("t", "test", name="train-q1")]}, n_dev=10)


def test_too_little_data() -> None:
    with pytest.raises(
        DataError, match=r"n_dev is 50, but train has only 50 questions; lower task.n_dev"
    ):
        make_splits({"train": TRAIN, "test": TEST}, n_dev=50)
    with pytest.raises(DataError, match="no questions are left for test"):
        make_splits({"train": TRAIN, "test": []}, n_dev=10)
