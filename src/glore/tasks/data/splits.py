"""Train, dev and test without a question in common.

Two questions are the same if they agree after normalising case, Unicode form and white space. A
hash of the question decides what is held out of train and which questions a subset has, so neither
depends on the order of the file, the run's seed or the machine. A larger subset includes every
smaller one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from glore.errors import DataError, shown
from glore.records import Problem

__all__ = ["SPLITS", "Loaded", "Splits", "make_splits", "question_key"]

SPLITS = ("train", "dev", "test")
_TEST_SHARE = 0.2


class Loaded(NamedTuple):
    """A problem, and where it came from, for messages."""

    problem: Problem
    where: str


class Splits(NamedTuple):
    """The problems of each split in file order, and what was left out."""

    problems: Mapping[str, tuple[Problem, ...]]
    n_duplicates: int
    """Problems left out because the same question is earlier in the same split."""
    n_overlaps: int
    """Problems left out of train or dev because the same question is in dev or test."""


def question_key(question: str) -> str:
    """The normalised question, equal for two spellings of the same question."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def make_splits(
    given: Mapping[str, Sequence[Loaded]],
    *,
    n_dev: int,
    max_train: int | None = None,
    max_test: int | None = None,
    overlap: Literal["error", "drop"] = "error",
) -> Splits:
    """Problems in three splits, checked, with dev held out if it is missing. `given` has `train`
    and `test`, perhaps `dev`; or `all`, which is split by hash.

    `overlap`: for the user's own data, a question in two splits, or twice with different answers,
    is an error; for public data, the copy in the less protected split (test before dev before
    train) is dropped and counted. Raises DataError.
    """
    _check_ids(item for items in given.values() for item in items)
    parts = {name: list(items) for name, items in given.items()}
    if "all" in parts:
        parts = _cut_test(parts["all"])
    n_duplicates = 0
    for name in parts:
        kept = _without_duplicates(parts[name], overlap)
        n_duplicates += len(parts[name]) - len(kept)
        parts[name] = kept
    n_before = sum(map(len, parts.values()))
    _separate(parts, overlap)
    n_overlaps = n_before - sum(map(len, parts.values()))
    if not parts.get("dev"):
        _hold_out_dev(parts, n_dev)
    parts["train"] = _subset(parts["train"], max_train)
    parts["test"] = _subset(parts["test"], max_test)
    problems = {
        name: tuple(replace(item.problem, split=name) for item in parts[name]) for name in SPLITS
    }
    for name in SPLITS:
        if not problems[name]:
            raise DataError(
                f"no questions are left for {name}; add some, or check for questions in several "
                "splits"
            )
    return Splits(problems, n_duplicates, n_overlaps)


def _check_ids(items: Iterable[Loaded]) -> None:
    seen: dict[str, str] = {}
    for item in items:
        first = seen.setdefault(item.problem.id, item.where)
        if first is not item.where:
            raise DataError(
                f"{item.where}: the field 'id' is {shown(item.problem.id)} as in {first}; ids must "
                "differ"
            )


def _without_duplicates(items: list[Loaded], overlap: str) -> list[Loaded]:
    seen: dict[str, Loaded] = {}
    for item in items:
        first = seen.setdefault(question_key(item.problem.question), item)
        if overlap == "error" and first.problem.answer != item.problem.answer:
            raise DataError(
                f"{item.where}: the same question as in {first.where} with another answer "
                f"({shown(item.problem.answer)}, there {shown(first.problem.answer)}); correct or "
                "remove one"
            )
    return list(seen.values())


def _separate(parts: dict[str, list[Loaded]], overlap: str) -> None:
    """Remove from train and dev, in place, the questions of a more protected split."""
    taken: dict[str, Loaded] = {}
    for name in ("test", "dev", "train"):
        kept = []
        for item in parts.get(name, []):
            first = taken.get(question_key(item.problem.question))
            if first is None:
                kept.append(item)
            elif overlap == "error":
                raise DataError(
                    f"{item.where}: this question is also in {first.where}, but {name} and "
                    f"{first.problem.split} must not share any ({shown(item.problem.question)}); "
                    "remove one"
                )
        taken.update((question_key(item.problem.question), item) for item in kept)
        if name in parts:
            parts[name] = kept


def _hold_out_dev(parts: dict[str, list[Loaded]], n_dev: int) -> None:
    train = parts["train"]
    if n_dev >= len(train):
        raise DataError(
            f"task.n_dev is {n_dev}, but train has only {len(train)} questions; lower task.n_dev "
            "or add questions"
        )
    held = {id(item) for item in _by_hash(train, "dev")[:n_dev]}
    parts["dev"] = [item for item in train if id(item) in held]
    parts["train"] = [item for item in train if id(item) not in held]


def _cut_test(items: list[Loaded]) -> dict[str, list[Loaded]]:
    """Train and test from one file: a fifth of its questions become the test set."""
    keys = sorted(
        {question_key(item.problem.question) for item in items}, key=lambda key: _hash("test", key)
    )
    held = set(keys[: max(1, round(len(keys) * _TEST_SHARE))])
    parts: dict[str, list[Loaded]] = {"train": [], "test": []}
    for item in items:
        parts["test" if question_key(item.problem.question) in held else "train"].append(item)
    return parts


def _subset(items: list[Loaded], size: int | None) -> list[Loaded]:
    if size is None or size >= len(items):
        return items
    kept = {id(item) for item in _by_hash(items, "subset")[:size]}
    return [item for item in items if id(item) in kept]


def _by_hash(items: Sequence[Loaded], purpose: str) -> list[Loaded]:
    return sorted(items, key=lambda item: _hash(purpose, question_key(item.problem.question)))


def _hash(purpose: str, key: str) -> bytes:
    return hashlib.blake2b(f"{purpose}\x1f{key}".encode(), digest_size=16).digest()
