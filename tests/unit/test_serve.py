"""The server over HTTP, with scripted models: routes, errors, limits, keys, queue, draining."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="glore serve needs the extra serve: pip install glore[serve]")
pytest.importorskip("uvicorn", reason="glore serve needs the extra serve: pip install glore[serve]")

from glore.chat_template import read_chat_template
from glore.engines.partial import IsWanted, ListenerOf, OnCompletion
from glore.engines.protocol import Completion, FollowUp, Request, Result
from glore.errors import ConfigError
from glore.prompts import BAD_MARK, PromptLayout
from glore.refiner import RefineOptions, Refiner
from glore.serve.app import create_app
from glore.serve.every_mark import marks
from glore.serve.keys import KEY_VARIABLE, read_key
from glore.serve.limits import Limits
from glore.serve.served import MODELS, Served
from glore.serve.tracing import WANTED, set_up_tracing
from glore.where import first_bad_step
from support.fakes import FunctionEngine
from support.live_server import live, until
from support.tiny_models import tiny_tokenizer

ANSWERS = ("4 + 4 = 8\n#### 8", "2 + 3 = 5\n#### 5", "5 = 5\n#### 5")
GOOD = {"2 + 3 = 5": 0.9, "#### 5": 0.8, "right": 0.9, "#### 7": 0.95}


class Models:
    """Scripted models. `gate`: the student answers only while it is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.student = FunctionEngine(self._draw)
        self.refiner = FunctionEngine(lambda request, seed: "right\n#### 7")
        self.served = Served(
            Refiner(self.student, self.refiner, self, self, RefineOptions(max_new_tokens=50)),
            tiny_tokenizer(),
        )

    def _draw(self, request: Request, seed: int) -> str:
        assert self.gate.wait(30)
        if "fail" in "".join(request.segments):
            raise RuntimeError("a secret of the server")
        if "every" in "".join(request.segments):
            return "a\nb\nc\nd"
        if request.params.stop:
            return "cut here"
        return ANSWERS[seed % 3] if request.params.temperature else ANSWERS[0]

    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        return [tuple(GOOD.get(step, 0.25) for step in steps) for _, steps in items]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def client(models: Models) -> Iterator[httpx2.Client]:
    with connected(create_app(models.served)) as client:
        yield client


@contextlib.contextmanager
def connected(app: object) -> Iterator[httpx2.Client]:
    """A client of the application, which is served until the block ends."""
    with live(app) as url, httpx2.Client(base_url=url, timeout=30) as client:
        yield client


def ask(client: httpx2.Client, model: str = "student", text: str = "q?", **more: object) -> object:
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "messages": messages, **more}
    return client.post("/v1/chat/completions", json=body)


def error_of(answer: httpx2.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def events(answer: httpx2.Response) -> list[dict[str, object]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_the_student_answers_the_last_message(client: httpx2.Client, models: Models) -> None:
    answer = ask(client, text="  How many? ").json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWERS[0], "refusal": None}
    assert (answer["object"], choice["finish_reason"]) == ("chat.completion", "stop")
    assert answer["usage"]["completion_tokens"] == len(ANSWERS[0].split()) + 1
    assert answer["usage"]["prompt_tokens"] == 4  # Question: How many? Answer:
    (request,) = models.student.requests
    assert request.segments == ("Question: How many?\nAnswer:\n",)
    assert (request.params.temperature, request.params.max_new_tokens) == (0, 50)


def test_glore_counts_and_shows_all_its_work(client: httpx2.Client) -> None:
    answer = ask(client, "glore").json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "right\n#### 7"
    work = choice["message"]["reasoning_content"]
    assert f"{BAD_MARK} 4 + 4 = 8" in work
    assert "chosen" in work
    assert answer["usage"]["completion_tokens"] == 8 + 2 * 4  # the draft, two refinements


def test_iterated_goes_on_until_the_orm_accepts(client: httpx2.Client, models: Models) -> None:
    answer = ask(client, "glore-iterated").json()
    message = answer["choices"][0]["message"]
    assert message["content"] == "right\n#### 7"
    assert message["reasoning_content"].startswith("Round 1\nDraft (needs work")
    assert "Round 2" not in message["reasoning_content"]
    assert answer["usage"]["completion_tokens"] == 8 + 2 * 4
    # Every round a little better, and never good enough: it ends after four.
    better = dict(zip(("r0", "r1", "r2", "r3", "r4"), (0.3, 0.35, 0.4, 0.45, 0.48), strict=True))

    def improved(request: Request, seed: int) -> str:
        drafted = next(n for n in reversed(range(4)) if f"r{n}" in "".join(request.segments))
        return f"r{drafted + 1}"

    models.served.refiner.student = FunctionEngine(lambda request, seed: "r0")
    models.served.refiner.refiner = FunctionEngine(improved)
    GOOD.update(better)
    try:
        answer = ask(client, "glore-iterated", n=2).json()
        alone = ask(client, "glore-iterated", "other").json()
        for step in ("r1", "r2"):
            GOOD[step] = 0.3  # no refinement is better than the draft: one round
        stuck = ask(client, "glore-iterated").json()
        GOOD["r0"] = 0.9
        accepted = ask(client, "glore-iterated").json()
    finally:
        for step in better:
            del GOOD[step]
    assert [c["message"]["content"] for c in answer["choices"]] == ["r4"] * 2
    assert answer["choices"][0]["message"]["reasoning_content"].count("Round ") == 4
    assert answer["usage"]["completion_tokens"] == 2 * (2 + 4 * 2 * 2)
    assert alone["usage"]["completion_tokens"] == 2 + 4 * 2 * 2
    assert stuck["choices"][0]["message"]["content"] == "r0"
    assert stuck["usage"]["completion_tokens"] == 2 + 2 * 2
    assert accepted["usage"]["completion_tokens"] == 2
    assert accepted["choices"][0]["message"]["reasoning_content"] == "The ORM accepts the draft."


def test_best_of_n_and_majority_choose(client: httpx2.Client) -> None:
    for model, chosen in (("best-of-n", ANSWERS[1]), ("majority", None)):
        answer = ask(client, model, best_of=24, seed=3).json()
        (choice,) = answer["choices"]
        work = choice["message"]["reasoning_content"]
        assert len(re.findall(r"(?m)^Solution \d+$", work)) == 24
        assert len(re.findall(r"(?m)^Solution \d+: .*, chosen$", work)) == 1
        text = choice["message"]["content"]
        assert text == chosen or (chosen is None and text.endswith("#### 5"))
        assert answer["usage"]["completion_tokens"] > 24 * 5


def test_completions_of_a_list_are_those_of_each_prompt(client: httpx2.Client) -> None:
    def texts(prompt: object) -> list[str]:
        body = {"model": "student", "prompt": prompt, "n": 5, "seed": 1, "temperature": 1}
        answer = client.post("/v1/completions", json=body).json()
        assert [c["index"] for c in answer["choices"]] == list(range(len(answer["choices"])))
        return [c["text"] for c in answer["choices"]]

    both, one = texts(["a", "b"]), texts("b")
    assert len(set(one)) > 1
    assert both[5:] == one


def test_streams_hold_the_same_answer(client: httpx2.Client) -> None:
    for model in MODELS:
        whole = ask(client, model, seed=1).json()
        options = {"include_usage": True}
        *pieces, last = events(ask(client, model, seed=1, stream=True, stream_options=options))
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert all(piece["usage"] is None for piece in pieces)
        deltas = [piece["choices"][0]["delta"] for piece in pieces]
        message = whole["choices"][0]["message"]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert "".join(d.get("content", "") for d in deltas) == message["content"]
        work = "".join(d.get("reasoning_content", "") for d in deltas)
        assert work == message.get("reasoning_content", "")
        assert pieces[-1]["choices"][0]["finish_reason"] == "stop"
        assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    body = {"model": "student", "prompt": ["a", "b"], "stream": True}
    pieces = events(client.post("/v1/completions", json=body))
    for index in (0, 1):
        texts = [c["text"] for p in pieces for c in p["choices"] if c["index"] == index]
        assert "".join(texts) == ANSWERS[0]


class TellingEngine(FunctionEngine):
    """Tells each part of a text, and waits for `gates[n]` after the n-th."""

    def __init__(self, parts: list[str]) -> None:
        super().__init__(lambda request, seed: parts[-1])
        self.parts, self.gates = parts, [threading.Event() for _ in parts]

    def stream(
        self, requests: object, follow_up: object, listener_of: object, *_: object
    ) -> object:
        for request in requests:
            for part, gate in zip(self.parts, self.gates, strict=True):
                if (tell := listener_of(request)) is not None:
                    for index in range(len(request.seeds)):
                        tell(index, part)
                    assert gate.wait(30)
            yield from self.run([request])


def test_the_student_streams_what_is_drawn(models: Models) -> None:
    engine = TellingEngine(["on", "one tw", "one", "one two STO", "one two STOP three\nfour"])
    models.served.refiner.student = engine
    body = {"model": "student", "prompt": "q", "stream": True, "n": 2, "stop": ["STOP", "zz"]}
    with connected(create_app(models.served)) as client:
        with client.stream("POST", "/v1/completions", json=body) as answer:
            read = (json.loads(x.removeprefix("data: ")) for x in answer.iter_lines() if "{" in x)
            drawn: dict[int, str] = {0: "", 1: ""}
            # Each text is here before the engine goes on; a shorter one, drawn again, is not sent.
            for gate, shown in zip(engine.gates, ("on", "one tw", "", "one two ", ""), strict=True):
                while shown and set(drawn.values()) != {shown}:
                    (choice,) = next(read)["choices"]
                    drawn[choice["index"]] += choice["text"]
                gate.set()
            rest = [piece["choices"][0] for piece in read]
        assert [(c["text"], c["finish_reason"]) for c in rest] == [("", "stop")] * 2
        whole = {**body, "stream": False, "n": 1}
        assert client.post("/v1/completions", json=whole).json()["choices"][0]["text"] == drawn[0]
        del body["stop"]
        pieces = events(client.post("/v1/completions", json=body))
        for index in (0, 1):
            texts = [c["text"] for p in pieces for c in p["choices"] if c["index"] == index]
            assert "".join(texts) == engine.parts[-1]


def work_until(lines: Iterator[str], end: str) -> str:
    """Read a stream until the work holds `end`, without any of the answer. Returns that work."""
    work = ""
    while end not in work:
        line = next(lines)
        if "{" in line:
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            assert not choice["delta"].get("content")
            work += choice["delta"].get("reasoning_content", "")
    return work


@pytest.mark.parametrize("model", ["glore", "glore-iterated"])
def test_glore_streams_its_work(models: Models, model: str) -> None:
    gate = threading.Event()

    def refined(request: Request, seed: int) -> str:
        assert gate.wait(30)
        return "right\n#### 7"

    # The local refinement is drawn first, and told after the global one.
    models.served.refiner.refiner = FunctionEngine(refined)
    body = {"model": model, "messages": [{"role": "user", "content": "q"}], "stream": True}
    with connected(create_app(models.served)) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            work = work_until(lines, "\n0.25 0.25  #### 8")  # no refinement has begun
            gate.set()
            work += work_until(lines, "Scores: draft 0.250, global 0.950 (chosen), local 0.950")
            rest = "".join(lines)
        assert work.index("Draft") < work.index("Global") < work.index("Local")
        assert '"content": "#### 7"' in rest
        assert rest.endswith("data: [DONE]")
        message = ask(client, model).json()["choices"][0]["message"]
        assert message["reasoning_content"] == work


class OneByOne(FunctionEngine):
    """Tells completions in the order of `ends`, and waits for a gate after each."""

    def __init__(self, texts: list[str], ends: list[int]) -> None:
        super().__init__(lambda request, seed: texts[request.seeds.index(seed)])
        self.ends, self.gates = ends, [threading.Event() for _ in ends]

    def stream(
        self,
        requests: Iterable[Request],
        follow_up: FollowUp | None,
        listener_of: ListenerOf,
        is_wanted: IsWanted | None = None,
        on_completion: OnCompletion | None = None,
    ) -> Iterator[Result]:
        for result in self.run(requests):
            assert listener_of(result.request) is None  # halves of solutions are nobody's
            for index, gate in zip(self.ends, self.gates, strict=True):
                assert on_completion is not None
                on_completion(result.request, index, result.completions[index])
                assert gate.wait(30)
            yield result


@pytest.mark.parametrize("model", ["majority", "best-of-n"])
def test_each_solution_is_streamed_when_it_is_drawn(models: Models, model: str) -> None:
    texts = ["one\n#### 5", "two\n#### 6", "three\n#### 5", "four\n#### 9"]
    engine = OneByOne(texts, [1, 0, 3, 2])
    models.served.refiner.student = engine
    messages = [{"role": "user", "content": "q"}]
    body = {"model": model, "messages": messages, "stream": True, "best_of": 4, "n": 1}
    body["stream_options"] = {"include_usage": True}
    with connected(create_app(models.served)) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            engine.gates[0].set()  # the second one has ended, and waits for the first
            work = work_until(lines, "#### 6")
            assert work == "Solution 1\none\n#### 5\n\nSolution 2\ntwo\n#### 6"
            engine.gates[1].set()
            engine.gates[2].set()
            work += work_until(lines, "#### 9")
            assert work.endswith("\n\nSolution 3\nthree\n#### 5\n\nSolution 4\nfour\n#### 9")
            engine.gates[3].set()
            pieces = [json.loads(x.removeprefix("data: ")) for x in lines if "{" in x]
        *pieces, usage = pieces
        deltas = [p["choices"][0]["delta"] for p in pieces]
        work += "".join(d.get("reasoning_content", "") for d in deltas)
        assert ("2 of 4, chosen" in work) == (model == "majority")
        del body["stream"], body["stream_options"]
        whole = client.post("/v1/chat/completions", json=body).json()
        assert whole["choices"][0]["message"]["reasoning_content"] == work
        assert whole["usage"] == usage["usage"]
        assert usage["usage"]["completion_tokens"] == 4 * 4  # three words each, and the end


def test_best_of_n_streams_the_solutions_before_their_scores(models: Models) -> None:
    gate, orm = threading.Event(), models.served.refiner.orm

    class Waiting:
        def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
            assert gate.wait(30)
            return orm.score(items)

    models.served.refiner.orm = Waiting()
    messages = [{"role": "user", "content": "q"}]
    body = {"model": "best-of-n", "messages": messages, "stream": True, "best_of": 2}
    with connected(create_app(models.served)) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert "score" not in work_until(lines, "Solution 2\n")
            gate.set()
            rest = work_until(lines, "Solution 2: score 0.") + "".join(lines)
        assert ", chosen" in rest
        assert '"content": ' in rest


def test_stops_are_looked_for_in_the_answer(client: httpx2.Client, models: Models) -> None:
    assert ask(client, stop="x").json()["choices"][0]["message"]["content"] == "cut here"
    assert models.student.requests[-1].params.stop == "x"
    several = ask(client, stop=["zzz", "#### ", "8\n"]).json()["choices"][0]
    assert several["message"]["content"] == "4 + 4 = "
    chosen = ask(client, "glore", stop=["####"]).json()["choices"][0]
    assert (chosen["message"]["content"], chosen["finish_reason"]) == ("right\n", "stop")


def test_refine_gives_the_whole_trace(client: httpx2.Client) -> None:
    found = client.post("/v1/refine", json={"question": "q"}).json()
    assert found["draft"] == ["4 + 4 = 8", "#### 8"]
    assert found["orm_scores"] == found["sorm_scores"] == [0.25, 0.25]
    assert (found["needs_work"], found["marked_step"]) == (True, 0)
    assert found["candidate_kinds"] == ["draft", "global", "local"]
    assert found["candidate_scores"] == [0.25, 0.95, 0.95]
    assert (found["chosen"], found["answer"], found["text"]) == (1, "7", "right\n#### 7")


def test_every_mark_is_refined_where_asked(client: httpx2.Client, models: Models) -> None:
    plain = client.post("/v1/refine", json={"question": "q"}).json()
    assert "solutions" not in plain
    scores = dict(zip(("a", "b", "c", "d"), (0.8, 0.9, 0.7, 0.2), strict=True))
    GOOD.update(scores)
    found = client.post("/v1/refine", json={"question": "every", "every_mark": True}).json()
    for step in scores:
        del GOOD[step]
    assert (found["marked_step"], found["chosen"]) == (3, 1)
    draft, *others = found["solutions"]
    assert (draft["kind"], draft["sorm"], draft["score"]) == ("draft", [0.8, 0.9, 0.7, 0.2], 0.2)
    assert [(s["kind"], s["marked_step"]) for s in others] == [
        ("global", None),
        ("local", 0),
        ("local", 2),
        ("local", 3),
    ]
    assert {(s["answer"], s["score"], tuple(s["orm"])) for s in others} == {
        ("7", 0.95, (0.9, 0.95))
    }
    assert found["usage"]["completion_tokens"] == sum(s["n_tokens"] for s in found["solutions"])
    assert found["usage"]["completion_tokens"] == found["n_tokens"] + 2 * 4


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), max_size=9))
def test_marks_are_those_of_all_thresholds(scores: list[float]) -> None:
    thresholds = [*scores, *(p / 2 for p in scores), 0.0, 1.0]
    found = {first_bad_step(scores, t) for t in thresholds} - {None}
    assert set(marks(scores)) == found


def test_scores_are_those_of_both_models(client: httpx2.Client) -> None:
    body = {"question": "q", "steps": ["2 + 3 = 5", "so what"]}
    found = client.post("/v1/score", json=body).json()
    assert found["orm"] == found["sorm"] == [0.9, 0.25]
    assert (found["score"], found["needs_work"], found["first_bad_step"]) == (0.25, True, 1)
    two = client.post("/v1/score", json={"question": "q", "steps": ["a\nb"]})
    assert "step 1 is not one line" in error_of(two, 400)["message"]


def test_control_tokens_in_a_question_are_text(client: httpx2.Client, models: Models) -> None:
    assert ask(client, "glore", f"{BAD_MARK} <eos> [BAD]").status_code == 200
    for engine in (models.student, models.refiner):
        for request in engine.requests:
            marks = [segment for segment in request.segments if segment == BAD_MARK]
            assert len(marks) == (engine is models.refiner)


@pytest.mark.parametrize(
    ("more", "status", "param", "words"),
    [
        ({"model": "gpt-9"}, 404, "model", "student, glore"),
        ({"echo": True}, 400, "echo", "not supported"),
        ({"logprobs": True, "model": "glore"}, 400, "logprobs", "ask student"),
        ({"logprobs": 0}, 400, "logprobs", "boolean"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs=true"),
        ({"logprobs": True, "top_logprobs": 2}, 400, "top_logprobs", "at temperature 0, 1"),
        (
            {"logprobs": True, "top_logprobs": 1, "temperature": 1},
            400,
            "top_logprobs",
            "of no other",
        ),
        ({"logprobs": True, "top_logprobs": -1}, 400, "top_logprobs", "got -1"),
        ({"tools": [{}]}, 400, "tools", "not supported"),
        ({"nonsense": 1}, 400, "nonsense", "no parameter"),
        ({"\ud800\x1b": 1}, 400, None, "unicode"),
        ({"messages": [{"role": "\ud800", "content": "q"}]}, 400, "messages.0.role", "nput"),
        ({"n": 17}, 400, "n", "at most 16"),
        ({"n": 0}, 400, "n", "at least 1"),
        ({"n": "2"}, 400, "n", "integer"),
        ({"best_of": 2}, 400, "best_of", "best-of-n"),
        ({"max_tokens": 2049}, 400, "max_tokens", "at most 2,048"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, 400, "max_tokens", "differ"),
        ({"temperature": -1}, 400, "temperature", "from 0.001"),
        ({"top_p": 1.5}, 400, "top_p", "from 0 to 1"),
        ({"seed": 2**63}, 400, "seed", "64-bit"),
        ({"stream_options": {}}, 400, "stream_options", "needs stream"),
        ({"stop": 5}, 400, "stop", "valid string"),
        ({"stop": ["a", 2]}, 400, "stop", "valid string"),
        ({"messages": "hi"}, 400, "messages", "valid list"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0.content", "string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "messages.0.content",
            "text alone",
        ),
        ({"messages": []}, 400, "messages", "role user"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages", "empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, None, "nicode"),
        (
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
            400,
            "messages",
            "plain",
        ),
        ({"messages": [{"role": "user", "content": "x" * 20_001}]}, 400, "messages", "20,000"),
    ],
)
def test_mistakes_are_refused_before_anything_is_sampled(
    client: httpx2.Client,
    models: Models,
    more: dict[str, object],
    status: int,
    param: str | None,
    words: str,
) -> None:
    content = json.dumps(
        {"model": "student", "messages": [{"role": "user", "content": "q"}]} | more
    )
    headers = {"Content-Type": "application/json"}
    error = error_of(client.post("/v1/chat/completions", content=content, headers=headers), status)
    assert words in str(error["message"])
    if param is not None:
        assert error["param"] == param
    assert models.student.requests == []


def test_log_probabilities_that_an_engine_does_not_give_are_refused(
    client: httpx2.Client, models: Models
) -> None:
    models.student.tells_tokens = False
    for stream in (False, True):
        answer = ask(client, logprobs=True, stream=stream)
        assert "does not say which tokens" in answer.text
    assert error_of(ask(client, logprobs=True), 400)["param"] == "logprobs"
    body = {"model": "student", "prompt": "q"}
    for value, words in ((True, "a number here"), (2, "at temperature 0, 1"), ("1", "integer")):
        answer = client.post("/v1/completions", json={**body, "logprobs": value})
        assert words in str(error_of(answer, 400)["message"])
    assert client.post("/v1/completions", json={**body, "logprobs": False}).status_code == 200


def test_what_asks_for_nothing_is_accepted(client: httpx2.Client) -> None:
    empty = [{"role": "system", "content": " "}, {"role": "user", "content": "q"}]
    for model in ("student", "glore"):
        assert ask(client, model, messages=empty, extra_body={}).status_code == 200
    assert error_of(ask(client, continue_final_message=True), 400)["param"] is not None
    more = {"user": "me", "logprobs": False, "presence_penalty": 0.0, "tools": None, "echo": False}
    more["top_logprobs"] = 0
    assert ask(client, **more).status_code == 200
    assert error_of(ask(client, presence_penalty=0.5), 400)["param"] == "presence_penalty"


def test_bodies_that_are_none_of_ours(client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for content in (b"", b"{", b"[" * 100_000, b'{"n": NaN}', b"\xff", b"null", b"[]", b"1" * 5000):
        error_of(client.post("/v1/completions", content=content, headers=headers), 400)
    error_of(client.post("/v1/completions", content=b"x" * (2**20 + 1)), 413)
    error_of(client.post("/v1/completions", content=iter([b"x" * 2**19] * 3)), 413)
    for prompt in ([1, 2], [[1, 2]], ["a", 3], 7):
        error = error_of(client.post("/v1/completions", json={"model": "x", "prompt": prompt}), 400)
        assert error["param"] == "prompt"
        assert "token ids are not read" in str(error["message"])
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # the second is curl's own
        answer = client.post("/v1/score", content=b"{}", headers={"Content-Type": kind})
        assert "Content-Type: application/json" in str(error_of(answer, 400)["message"])
    assert error_of(client.post("/v1/score", content=b"{", headers=headers), 400)["param"] is None
    error_of(client.get("/v1/nothing"), 404)
    error_of(client.get("/v1/completions"), 405)


def test_a_failure_of_one_request_is_not_one_of_others(
    client: httpx2.Client, models: Models
) -> None:
    models.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, client, text=t) for t in ("a", "fail", "b", "c")]
        models.gate.set()
        answers = [future.result() for future in asked]
    assert [a.status_code for a in answers] == [200, 500, 200, 200]
    assert "secret" not in answers[1].text
    (piece,) = [
        e for e in ask(client, text="fail", stream=True).text.split("\n\n") if '"error"' in e
    ]
    assert json.loads(piece.removeprefix("data: "))["error"]["type"] == "server_error"
    assert ask(client).status_code == 200


def test_models_health_metrics(client: httpx2.Client) -> None:
    names = [m["id"] for m in client.get("/v1/models").json()["data"]]
    assert names == ["student", "glore", "glore-iterated", "glore-cascade", "best-of-n", "majority"]
    assert client.get("/v1/models/glore").json()["id"] == "glore"
    assert client.get("/v1/models/x").status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}
    tokens = ask(client, "glore").json()["usage"]["completion_tokens"]
    lines = client.get("/metrics").text.splitlines()
    assert f'glore_completion_tokens_total{{model="glore"}} {tokens}' in lines
    assert 'glore_requests_total{route="/v1/chat/completions",status="200"} 1' in lines
    assert "glore_queue_waiting 0" in lines


def test_a_full_queue_says_when_to_ask_again(models: Models) -> None:
    models.gate.clear()
    app = create_app(models.served, Limits(queue=2))
    with connected(app) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, client, text="first")]
        until(lambda: app.state.worker.n_running == 1)
        asked += [pool.submit(ask, client, text=f"waits {n}") for n in range(2)]
        until(lambda: app.state.worker.n_waiting == 2)
        for stream in (False, True):
            refused = ask(client, stream=stream)
            assert error_of(refused, 429)["code"] == "queue_full"
            assert int(refused.headers["Retry-After"]) >= 1
        models.gate.set()
        assert [future.result().status_code for future in asked] == [200] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(models: Models, stream: bool) -> None:
    models.gate.clear()
    app = create_app(models.served)
    with connected(app) as client:
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(ask, client, text="first")
            until(lambda: app.state.worker.n_running == 1)
            hasty = httpx2.Client(base_url=client.base_url, timeout=0.3)
            with hasty, pytest.raises(httpx2.TimeoutException):
                ask(hasty, text="gone", stream=stream)
            until(lambda: app.state.worker.n_waiting == 0)
            models.gate.set()
            assert first.result().status_code == 200
        assert all("gone" not in "".join(r.segments) for r in models.student.requests)
        until(lambda: "glore_disconnected_total 1" in client.get("/metrics").text)


class Patient(FunctionEngine):
    """Draws until its request is not wanted any more, or for ten seconds."""

    def stream(
        self,
        requests: Iterable[Request],
        follow_up: FollowUp | None,
        listener_of: ListenerOf,
        is_wanted: IsWanted | None = None,
        on_completion: OnCompletion | None = None,
    ) -> Iterator[Result]:
        for request in requests:
            until(lambda request=request: is_wanted is not None and not is_wanted(request))
            yield Result(
                request, tuple(Completion("so far", 2, "length", s) for s in request.seeds)
            )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["student", "best-of-n", "glore-cascade"])
def test_what_is_drawn_for_a_client_that_goes_away_is_given_up(
    models: Models, model: str, stream: bool
) -> None:
    before = models.served.refiner.student
    models.served.refiner.student = Patient(lambda request, seed: "")
    app = create_app(models.served)
    with connected(app) as client:
        hasty = httpx2.Client(base_url=client.base_url, timeout=0.5)
        with hasty, pytest.raises(httpx2.TimeoutException):
            ask(hasty, model, text="gone", stream=stream)
        until(lambda: app.state.worker.n_running == 0)
        models.served.refiner.student = before
        assert ask(client, model).status_code == 200


def test_an_answer_has_its_time(models: Models) -> None:
    models.gate.clear()
    with connected(create_app(models.served, Limits(seconds=0.2))) as client:
        assert error_of(ask(client), 504)["code"] == "timeout"
        models.gate.set()


def test_what_was_accepted_is_answered_before_the_end(models: Models) -> None:
    models.gate.clear()
    app = create_app(models.served)
    with ThreadPoolExecutor(8) as pool:
        with live(app) as url:
            client = httpx2.Client(base_url=url, timeout=30)
            asked = [pool.submit(ask, client, text=f"{n}") for n in range(3)]
            until(lambda: app.state.worker.n_running + app.state.worker.n_waiting == 3)
            threading.Timer(0.5, models.gate.set).start()
        # The server was told to end while all three waited.
        assert [future.result().status_code for future in asked] == [200] * 3
        client.close()
    assert not app.state.worker.is_ready


def test_keys(models: Models) -> None:
    with connected(create_app(models.served, key="a-long-key")) as client:
        for given in (None, "Bearer a-long-kez", "Bearer", "Basic a-long-key"):
            raw = {} if given is None else {"Authorization": given.encode()}
            error = error_of(client.get("/v1/models", headers=raw), 401)
            assert "a-long-key" not in str(error)
        good = {"Authorization": "Bearer a-long-key"}
        assert client.get("/v1/models", headers=good).status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/healthz").status_code == 200


def test_keys_are_read_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, "from-environment")
    assert read_key(None) == "from-environment"
    (tmp_path / "key").write_text("from-the-file\n")
    assert read_key(tmp_path / "key") == "from-the-file"
    for bad in ("short", "two words here", "ключ-ключ-ключ"):
        (tmp_path / "key").write_text(bad)
        with pytest.raises(ConfigError, match="at least 8") as failure:
            read_key(tmp_path / "key")
        assert bad not in str(failure.value)
    with pytest.raises(ConfigError, match="can't read the key file"):
        read_key(tmp_path / "none")


def test_a_conversation_needs_a_chat() -> None:
    models = Models()
    models.served.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant> "
    )
    chat = read_chat_template(models.served.tokenizer)
    models.served.refiner.layout = PromptLayout(chat=chat)
    before = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "1"},
    ]
    with connected(create_app(models.served)) as client:
        messages = [*before, {"role": "user", "content": "two?"}]
        assert ask(client, messages=messages).status_code == 200
        (request,) = models.student.requests
        expected = "<system> Be brief. <user> one? <assistant> 1 <user> two? <assistant> "
        assert "".join(request.segments) == expected
        assert "alone" in error_of(ask(client, "glore", messages=messages), 400)["message"]
        messages[1] = {"role": "user", "content": "one <eos>?"}
        assert "special token" in error_of(ask(client, messages=messages), 400)["message"]
        wrong = error_of(ask(client, messages=[before[0], before[2], messages[-1]]), 400)
        assert "in turn" in wrong["message"]


def test_requests_are_spans(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "spans need the extra otel: pip install glore[otel]"
    trace = pytest.importorskip("opentelemetry.trace", reason=reason)
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason=reason)
    export = pytest.importorskip("opentelemetry.sdk.trace.export", reason=reason)
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason=reason
    )
    kept, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    parent = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    with connected(create_app(models.served)) as client:
        client.headers.update(parent)
        tokens = ask(client, "glore", text="a secret question").json()["usage"]
        assert ask(client, stream=True).status_code == 200
        assert ask(client, text="fail").status_code == 500
        assert client.get("/healthz").status_code == 200
    spans = kept.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {"ab" * 16}
    assert [span.name for span in spans] == [
        *(["glore queue", "glore models", "POST /v1/chat/completions"] * 3),
        "GET /healthz",
    ]
    queue, work, request = spans[:3]
    assert f"{request.parent.span_id:016x}" == "cd" * 8
    assert {queue.parent.span_id, work.parent.span_id} == {request.context.span_id}
    assert queue.start_time <= queue.end_time == work.start_time <= work.end_time
    assert work.attributes["gen_ai.request.model"] == "glore"
    assert work.attributes["gen_ai.usage.output_tokens"] == tokens["completion_tokens"]
    assert request.attributes["http.response.status_code"] == 200
    assert spans[8].status.status_code.name == "ERROR"
    assert not any("secret" in str(dict(span.attributes)) for span in spans)


def test_an_exporter_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WANTED:
        monkeypatch.delenv(name, raising=False)
    set_up_tracing()  # nothing is asked for
    monkeypatch.setenv(WANTED[0], "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"pip install 'glore\[otel\]'"):
        set_up_tracing()
