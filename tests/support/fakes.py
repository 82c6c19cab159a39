"""Small stand-ins for tests: an engine that answers from a function, a task that adds, a scorer
that reads the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from glore.engines.lifetime import Closable
from glore.engines.protocol import Completion, FollowUp, Request, Result
from glore.prompts import split_steps
from glore.records import Problem, Solution
from glore.tasks.protocol import Grade


class FunctionEngine(Closable):
    """An Engine whose completion text is `answer(request, seed)`; counts what was drawn, returns
    results newest first.
    """

    def __init__(self, answer: Callable[[Request, int], str]) -> None:
        self._answer = answer
        self.n_drawn = 0
        self.requests: list[Request] = []
        self.tells_tokens = True

    backend = "function"

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        return self._guarded(self._results(requests, follow_up))

    def _results(
        self, requests: Iterable[Request], follow_up: FollowUp | None
    ) -> Generator[Result]:
        todo = list(requests)
        while todo:
            request = todo.pop()
            self.requests.append(request)
            self.n_drawn += len(request.seeds)
            texts = [(seed, self._answer(request, seed)) for seed in request.seeds]
            asked = self.tells_tokens and request.params.logprobs
            result = Result(request, tuple(_completion(*pair, asked) for pair in texts))
            if follow_up is not None:
                todo.extend(follow_up(result))
            yield result


def _completion(seed: int, text: str, tells_tokens: bool) -> Completion:
    """Tokens are words; the letters, where they are told with their log-probabilities."""
    if not tells_tokens:
        return Completion(text, len(text.split()) + 1, "eos", seed)
    ids = (*map(ord, text), 0)
    return Completion(text, len(ids), "eos", seed, (-1.0,) * len(ids), ids)


class LastLineTask:
    """The answer is what stands after `####` in the last step; `?` can't be graded."""

    name = "last-line"

    def __init__(self, problems: Sequence[Problem] = ()) -> None:
        self._problems = list(problems)

    def problems(self, split: str) -> list[Problem]:
        return [p for p in self._problems if p.split == split]

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        if not steps or not steps[-1].startswith("####"):
            return Grade("wrong", None)
        answer = steps[-1].removeprefix("####").strip()
        return Grade(
            "unknown" if answer == "?" else "right" if answer == problem.answer else "wrong", answer
        )


def problem(
    name: str = "p0",
    answer: str = "10",
    solution: tuple[str, ...] | None = None,
    split: str = "train",
) -> Problem:
    """A problem whose question is its name."""
    return Problem(
        id=name, question=f"What is {name}?", answer=answer, solution=solution, split=split
    )


def solution(
    text: str,
    verdict: str = "wrong",
    name: str = "s0",
    problem_id: str = "p0",
    source: str = "student",
) -> Solution:
    """A solution from its lines."""
    steps = split_steps(text)
    answer = (
        steps[-1].removeprefix("####").strip() if steps and steps[-1].startswith("####") else None
    )
    return Solution(
        id=name,
        problem_id=problem_id,
        steps=steps,
        answer=answer,
        correct=verdict,
        source=source,
        draft_id=None,
        n_tokens=len(text.split()),
        stop="eos",
        seed=0,
        temperature=1.0,
    )
