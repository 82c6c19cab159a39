"""One run of the student's engine for the jobs of several clients, who are told what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from glore.engines.partial import OnText, StreamsText
from glore.engines.protocol import Completion, Request, Result
from glore.seeds import stable_seed
from glore.serve.choosing import completion_solution, solutions_text
from glore.serve.served import STUDENT, Served
from glore.serve.work import Job, Sampling

__all__ = ["Found", "StudentRun"]

Found = dict[int, tuple[Completion, ...]]
"""The completions of each prompt of a job: `best_of` of its first choice, then of the second, …"""


class StudentRun:
    """Draws for `jobs`, and for those that `more` gives while it draws, which join them.

    A client of `student` is told its text as it is drawn; one of best-of-n or majority each
    solution when it has been drawn.
    """

    def __init__(
        self, served: Served, jobs: list[Job], more: Callable[[], Sequence[Job]] | None
    ) -> None:
        self._served, self._jobs, self._more = served, jobs, more
        self._owners: dict[str, tuple[Job, int]] = {}
        """Name of a request → whose it is, and the index of the prompt."""
        self._solutions: dict[tuple[Job, int], dict[int, str]] = {}
        """(job, choice) → the texts of its solutions so far."""
        self.found: dict[Job, Found] = {}

    def complete_jobs(self) -> Iterator[Job]:
        """Each job when all its prompts are in `found`."""
        student = self._served.refiner.student
        first = [request for job in self._jobs for request in self._requests(job)]
        if isinstance(student, StreamsText):
            results = student.stream(
                first, self._arrived, self._listener, self._is_wanted, self._ended
            )
        else:
            results = student.run(first, self._arrived)
        for result in results:
            job, prompt = self._owners[result.request.id]
            self.found[job][prompt] = result.completions
            if not isinstance(student, StreamsText):
                for index, completion in enumerate(result.completions):
                    self._ended(result.request, index, completion)
            if len(self.found[job]) == len(_sampling(job).prompts):
                yield job

    def _requests(self, job: Job) -> list[Request]:
        work, made = _sampling(job), []
        self.found[job] = {}
        for index, prompt in enumerate(work.prompts):
            name = f"r{len(self._owners)}"
            self._owners[name] = (job, index)
            seeds = tuple(
                stable_seed("serve", work.draw.seed, c, k)
                for c in range(work.n)
                for k in range(work.best_of)
            )
            params = work.draw.params(stop=work.model == STUDENT)
            made.append(Request(name, prompt.layout.solve(prompt.question), seeds, params))
        return made

    def _arrived(self, _: Result) -> Iterable[Request]:
        new = self._more() if self._more is not None else ()
        self._jobs.extend(new)
        return [request for job in new for request in self._requests(job)]

    def _is_wanted(self, request: Request) -> bool:
        return self._owners[request.id][0].is_wanted

    def _listener(self, request: Request) -> OnText | None:
        job, prompt = self._owners[request.id]
        tell, work = job.on_text, _sampling(job)
        if tell is None or work.model != STUDENT:
            return None
        return lambda index, text: tell(prompt * work.n + index, text)

    def _ended(self, request: Request, index: int, completion: Completion) -> None:
        """Tell the solutions of a choice so far, in their order, in whichever order they end: so
        what is told is always the beginning of the choice's work.
        """
        job, prompt = self._owners[request.id]
        tell, work = job.on_text, _sampling(job)
        if tell is None or work.model == STUDENT:
            return
        choice, number = prompt * work.n + index // work.best_of, index % work.best_of
        solutions = self._solutions.setdefault((job, choice), {})
        solutions[number] = completion_solution(self._served, completion)
        n_first = next((k for k in range(work.best_of) if k not in solutions), work.best_of)
        if number < n_first:
            tell(choice, solutions_text([solutions[k] for k in range(n_first)]))


def _sampling(job: Job) -> Sampling:
    assert isinstance(job.work, Sampling)
    return job.work
