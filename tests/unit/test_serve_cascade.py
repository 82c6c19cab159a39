"""The model glore-cascade over HTTP, with scripted models."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_serve import Models, ask, connected, error_of, work_until

from glore.cascade import N_SAMPLES
from glore.engines.protocol import Request
from glore.seeds import stable_seed
from glore.serve.app import create_app
from glore.serve.perform import Performer
from glore.serve.work import Answer, Draw, Job, Prompt, Sampling
from support.fakes import FunctionEngine
from support.live_server import until

MODEL = "glore-cascade"


def scripted(models: Models, draft: str, refined: str, samples: list[str]) -> None:
    """Texts of two words, whose second is the ORM's probability. Samples come in this order."""
    left = iter(samples)
    models.served.refiner.student = models.student = FunctionEngine(
        lambda request, seed: next(left) if request.params.temperature else draft
    )
    models.served.refiner.refiner = models.refiner = FunctionEngine(lambda request, seed: refined)

    class Scores:
        def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
            return [tuple(float(step.split()[1]) for step in steps) for _, steps in items]

    models.served.refiner.orm = Scores()


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.mark.parametrize(
    ("draft", "refined", "samples", "answer", "n_made"),
    [
        ("d 0.9", "g 0.9", [], "d 0.9", 1),
        ("d 0.2", "g 0.9", [], "g 0.9", 2),
        ("d 0.2", "g 0.3", ["a 0.1", "b 0.4", "c 0.7", "d 0.9"], "c 0.7", 5),
        ("d 0.2", "g 0.3", [f"s{k} 0.{k % 5}" for k in range(9)], "s4 0.4", 2 + N_SAMPLES),
    ],
)
def test_it_samples_until_the_orm_accepts(
    models: Models, draft: str, refined: str, samples: list[str], answer: str, n_made: int
) -> None:
    scripted(models, draft, refined, samples)
    with connected(create_app(models.served)) as client:
        found = ask(client, MODEL).json()
    message = found["choices"][0]["message"]
    assert message["content"] == answer
    assert models.student.n_drawn + models.refiner.n_drawn == n_made
    assert found["usage"]["completion_tokens"] == 3 * n_made
    parts = message["reasoning_content"].split("\n\n")
    assert len(parts) == n_made + 1
    p = f"{float(draft.split()[1]):.2f}"
    verdict = "looks right" if n_made == 1 else "needs work"
    assert parts[0] == f"Draft ({verdict}, score {p}0; ORM of every step)\n{p}  {draft}"
    assert parts[-1].startswith(f"Scores: draft {p}0")
    assert f" {float(answer.split()[1]):.3f} (chosen)" in parts[-1]
    if n_made == 5:
        expected = "Scores: draft 0.200, global 0.300, sample 1 0.100, sample 2 0.400, sample 3"
        assert parts[-1] == f"{expected} 0.700 (chosen)"


def test_the_request_says_how_and_how_often(models: Models) -> None:
    def asked(**more: object) -> list[tuple[float, float, int, int]]:
        scripted(models, "d 0.1", "g 0.1", ["s 0.2"] * 99)
        with connected(create_app(models.served)) as client:
            assert ask(client, MODEL, **more).status_code == 200
        params = [request.params for request in models.student.requests]
        return [(p.temperature, p.top_p, p.top_k, p.max_new_tokens) for p in params]

    own = models.served.temperature, models.served.top_p, models.served.top_k
    assert asked() == [(0, 1, 0, 50), *[(*own, 50)] * N_SAMPLES]
    assert asked(best_of=2, max_tokens=7) == [(0, 1, 0, 7), *[(*own, 7)] * 2]
    assert models.refiner.requests[0].params.max_new_tokens == 7
    assert asked(temperature=0) == [(0, 1, 0, 50)]  # a greedy sample is the draft again
    scripted(models, "d 0.1", "g 0.1", [])
    models.served.refiner.student = models.student = FunctionEngine(lambda request, seed: "s 0.1")
    with connected(create_app(models.served)) as client:
        assert ask(client, MODEL, temperature=0.5, top_k=3, best_of=3, n=2).status_code == 200
        assert {(r.params.temperature, r.params.top_k) for r in models.student.requests} == {
            (0.5, 3)
        }
        seeds = [seed for request in models.student.requests for seed in request.seeds]
        assert len(set(seeds)) == 2 * (1 + 3)
        for wrong in (0, 65):
            assert error_of(ask(client, MODEL, best_of=wrong), 400)["param"] == "best_of"
        assert error_of(ask(client, MODEL, logprobs=True), 400)["param"] == "logprobs"
        stopped = ask(client, MODEL, stop=[" 0.1"]).json()["choices"][0]
        assert (stopped["message"]["content"], stopped["finish_reason"]) == ("s", "stop")


def test_each_solution_is_told_when_it_is_scored(models: Models) -> None:
    scripted(models, "d 0.1", "g 0.2", ["a 0.3", "b 0.8"])
    gates = {name: threading.Event() for name in ("global", "sample1", "sample2")}

    def waiting(engine: FunctionEngine) -> FunctionEngine:
        def text(request: Request, seed: int) -> str:
            gate = gates.get(request.id.partition("/")[2])
            assert gate is None or gate.wait(30)
            return engine._answer(request, seed)

        return FunctionEngine(text)

    models.served.refiner.student = waiting(models.student)
    models.served.refiner.refiner = waiting(models.refiner)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "q"}], "stream": True}
    with (
        connected(create_app(models.served)) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        assert work_until(lines, "d 0.1").startswith("Draft (needs work, score 0.100")
        for name, end in (("global", "g 0.2"), ("sample1", "a 0.3"), ("sample2", "b 0.8")):
            gates[name].set()
            assert work_until(lines, end).endswith(end)
        rest = [json.loads(x.removeprefix("data: ")) for x in lines if "{" in x]
    deltas = [piece["choices"][0]["delta"] for piece in rest]
    assert "sample 2 0.800 (chosen)" in "".join(d.get("reasoning_content", "") for d in deltas)
    assert "".join(d.get("content", "") for d in deltas) == "b 0.8"


def job(question: str, models: Models, seed: int = 0, n: int = 1, best_of: int = 3) -> Job:
    draw = Draw(0.0, 1.0, 0, 20, (), seed)
    samples = Draw(1.0, 1.0, 0, 20, (), seed)
    prompts = (Prompt(question, models.served.refiner.layout, 3),)
    return Job(Sampling(MODEL, prompts, n, best_of, draw, samples))


def by_seed(models: Models) -> None:
    """Models whose answers depend on the prompt and the seed of a sample."""
    scripted(models, "", "", [])

    def text(request: Request, seed: int) -> str:
        sampled = seed if request.params.temperature else 0
        n = stable_seed(*request.segments, sampled) % 7
        return f"s{n} 0.{n}"

    models.served.refiner.student, models.served.refiner.refiner = (
        FunctionEngine(text) for _ in range(2)
    )


def test_answers_do_not_depend_on_the_batch(models: Models) -> None:
    by_seed(models)
    perform = Performer(models.served)

    def answers(*jobs: Job) -> list[Answer]:
        perform(jobs, lambda _: [])
        found = [one.future.result() for one in jobs]
        assert all(isinstance(answer, Answer) for answer in found)
        return [answer for answer in found if isinstance(answer, Answer)]

    asked = [(f"q{k}", k % 3, 1 + k % 2) for k in range(12)]
    alone = [answers(job(q, models, seed, n))[0] for q, seed, n in asked]
    assert answers(*(job(q, models, seed, n) for q, seed, n in asked)) == alone
    assert answers(*(job(q, models, seed, n) for q, seed, n in asked[::-1])) == alone[::-1]
    assert len({found.choices[0].work.count("\n\n") for found in alone}) > 2


def test_one_that_fails_and_one_that_nobody_wants_leave_the_others_alone(models: Models) -> None:
    by_seed(models)
    gone = job("gone", models)

    def text(request: Request, seed: int) -> str:
        if "fails" in "".join(request.segments) and request.params.temperature:
            raise RuntimeError("a secret of the server")
        if "gone" in "".join(request.segments):
            gone.give_up()
        return f"s {0.1 if 'fails' in ''.join(request.segments) else 0.2}"

    models.served.refiner.student = FunctionEngine(text)
    models.served.refiner.refiner = FunctionEngine(lambda request, seed: "g 0.3")
    jobs = [job("a", models), job("fails", models), gone, job("b", models)]
    for one in jobs:
        one.future.set_running_or_notify_cancel()
    Performer(models.served)(jobs, lambda _: [])
    for one in (jobs[0], jobs[3]):
        answer = one.future.result()
        assert answer.choices[0].text == "g 0.3"
        assert answer.completion_tokens == 3 * 5
    with pytest.raises(RuntimeError, match="secret"):
        jobs[1].future.result()
    assert "went away" in str(gone.future.exception())
    drawn = [r for r in models.served.refiner.student.requests if "gone" in "".join(r.segments)]
    assert len(drawn) == 1


def test_an_answer_does_not_wait_for_those_of_others(models: Models) -> None:
    gate = threading.Event()
    scripted(models, "", "g 0.1", [])

    def text(request: Request, seed: int) -> str:
        prompt = "".join(request.segments)
        if request.params.temperature:
            assert gate.wait(30)
        return "s 0.9" if "easy" in prompt else "s 0.1"

    models.served.refiner.student = FunctionEngine(text)
    jobs = [job("hard", models), job("easy", models)]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(Performer(models.served), jobs, lambda _: [])
        until(jobs[1].future.done)
        assert not jobs[0].future.done()
        gate.set()
        done.result()
    assert jobs[0].future.result().choices[0].text == "s 0.1"
