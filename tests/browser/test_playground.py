"""The playground in a real browser, with scripted models: it refines, decides again, shares, and
stays harmless. Skips where no Chromium, or no FastAPI, is installed.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="glore serve needs the extra serve: pip install glore[serve]")
pytest.importorskip("uvicorn", reason="glore serve needs the extra serve: pip install glore[serve]")

from glore.evaluation import EvaluationOptions
from glore.prompts import BAD_MARK
from glore.refiner import RefineOptions, Refiner
from glore.report.solution_browser import solution_data
from glore.serve.app import create_app
from glore.serve.playground import Browsed
from glore.serve.served import Served
from support.chromium import Browser, find_chromium
from support.contrast import contrasts, too_low
from support.fake_records import HOSTILE, fake_inputs
from support.fakes import FunctionEngine
from support.live_server import live
from support.tiny_models import tiny_tokenizer

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH; install one or set GLORE_CHROMIUM"
)
DRAFT = ("one & <b>bold</b>", "two 2", f"three {BAD_MARK} 3", "#### 4")
SORM = {DRAFT[0]: 0.8, DRAFT[1]: 0.6, DRAFT[2]: 0.7, DRAFT[3]: 0.3}
ORM = {DRAFT[0]: 0.7, DRAFT[1]: 0.7, DRAFT[2]: 0.5, DRAFT[3]: 0.4}
SCORE = {"global": 0.55, "at 0": 0.2, "at 1": 0.9, "at 3": 0.6}
"""The ORM's score of a refinement, by what it begins with: local ones say where they were marked.
"""
OPTIONS = EvaluationOptions(bootstrap_samples=100)


class Table:
    """A reward model whose scores stand in a table, by how a step begins."""

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table
        self.n_calls = 0

    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        self.n_calls += 1
        found = {**SCORE, **self.table}
        return [
            tuple(next(p for text, p in found.items() if s.startswith(text)) for s in steps)
            for _, steps in items
        ]


class Models:
    """A draft of four steps; refinements that say which step of theirs was marked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.student = FunctionEngine(self._draft)
        self.refiner = FunctionEngine(self._refined)
        self.sorm = Table(SORM)
        refiner = Refiner(
            self.student, self.refiner, Table(ORM), self.sorm, RefineOptions(mark_global=False)
        )
        self.served = Served(refiner, tiny_tokenizer())

    def _draft(self, request: object, seed: int) -> str:
        assert self.gate.wait(30)
        return "\n".join(DRAFT)

    def _refined(self, request: object, seed: int) -> str:
        # The mark is a segment of its own; the same letters in a step are text.
        segments = request.segments
        if BAD_MARK not in segments:
            return "\n".join((*DRAFT[:2], "global way", "global #### 5"))
        mark = DRAFT.index(segments[segments.index(BAD_MARK) + 1].splitlines()[0].strip())
        return "\n".join((*DRAFT[:mark], f"at {mark}", f"at {mark} #### 6"))


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs():
    return dataclasses.replace(fake_inputs(30, hostile=True), name="a-run")


@pytest.fixture(scope="module")
def data(inputs):
    return solution_data(inputs, OPTIONS, digits=None)


@pytest.fixture
def models():
    return Models()


@pytest.fixture
def url(models, data):
    with live(create_app(models.served, browsed=Browsed("a-run", lambda: data))) as address:
        yield address


def wait(browser, holds: str, seconds: float = 12) -> None:
    end = time.monotonic() + seconds
    while not browser.run(holds):
        assert time.monotonic() < end, f"it did not happen: {holds} {browser.console}"
        time.sleep(0.05)


def opened(browser, url: str, width: int = 1400, scheme: str = "light") -> None:
    browser.console.clear()
    browser.requests.clear()
    browser.open(url, width, scheme=scheme)
    wait(browser, "document.querySelectorAll('#list button').length > 0")


def refine(browser, question: str = "Why?") -> None:
    browser.run(f"document.getElementById('question').value = {json.dumps(question)}")
    browser.run("document.getElementById('ask').requestSubmit()")
    wait(browser, "document.getElementById('status').textContent.startsWith('Done')")


def slide(browser, **values: float) -> None:
    for name, value in values.items():
        browser.run(
            f"{{const x = document.getElementById('{name}'); x.value = {value}; "
            "x.dispatchEvent(new Event('input')); 0}"
        )


def text(browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector('{selector}').textContent"))


@pytest.mark.parametrize("width", [1400, 360])
def test_it_shows_what_was_done_and_fits(browser, url, width):
    opened(browser, url, width)
    refine(browser, HOSTILE)
    assert browser.run("document.querySelectorAll('#answer .sol').length") == 3
    assert browser.run("document.documentElement.scrollWidth") <= width
    # The draft's last step is the first at or below 0.5, so that is where the mark is.
    assert "[BAD] goes before step 4" in text(browser, "#answer .story")
    marked = "document.querySelector('#answer .bad-mark').closest('.t').textContent"
    assert browser.run(marked) == f"{BAD_MARK}#### 4"
    assert text(browser, "#answer .sol.chosen h4").startswith("Local refinement")
    assert text(browser, "#answer .question") == HOSTILE
    assert text(browser, "#answer .step .t") == DRAFT[0]
    assert browser.run("document.querySelectorAll('#answer b:not(del b), img').length") == 0
    assert browser.run("document.title") == "glore playground"
    assert browser.console == []
    assert all(r.startswith((url, "data:")) for r in browser.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser, url, models, scheme):
    """Also with the strongest tints: probabilities 0 and 1, on a mark and on none."""
    models.sorm.table = dict(zip(DRAFT, (1.0, 0.3, 0.5, 0.0), strict=True))
    opened(browser, url, scheme=scheme)
    refine(browser)
    for where in (0.02, 0.5, 0.98):
        slide(browser, where=where)
        found = contrasts(browser)
        assert len(found) > 100
        assert too_low(found) == set()
    browser.run("document.getElementById('problem').textContent = 'an error'")
    assert too_low(contrasts(browser)) == set()


def test_what_changed_is_shown(browser, url):
    opened(browser, url)
    refine(browser)
    rows = browser.run(
        "[...document.querySelectorAll('#answer .sol')].at(-1).querySelectorAll('.step').length"
    )
    classes = browser.run(
        "[...[...document.querySelectorAll('#answer .sol')].at(-1).querySelectorAll('.step')]"
        ".map((r) => r.className.trim())"
    )
    assert rows == 6
    assert classes == ["step same"] * 3 + ["step gone"] + ["step new"] * 2
    assert "changed: " in text(browser, "#answer .step.new .unseen")
    assert "2 new steps, 1 left out" in text(browser, "#answer .sol:last-child .small")


def test_sliders_decide_again_as_python_does_and_sample_nothing(browser, url, models):
    opened(browser, url)
    refine(browser)
    n_requests = len(models.refiner.requests)
    # Besides the global one: local refinements at steps 1, 2 and 4, which thresholds can mark.
    assert n_requests == 4
    orm, sorm = [ORM[s] for s in DRAFT], [SORM[s] for s in DRAFT]
    for where in (0.0, 0.29, 0.3, 0.5, 0.6, 0.65, 0.75, 0.8, 1.0):
        for when in (0.3, 0.4, 0.9):
            slide(browser, when=when, where=where)
            options = RefineOptions(threshold=where)
            mark = options.first_bad_step(sorm)
            candidates = [orm, [SCORE["global"]]] + (
                [[SCORE[f"at {mark}"]]] if mark is not None else []
            )
            names = ["Draft", "Global refinement", "Local refinement"]
            chosen = names[options.choose(candidates)]
            # A refinement keeps the draft's steps before its mark; the last one is its own.
            head = text(browser, "#answer .sol.chosen h4")
            assert head.startswith(chosen), (when, where, head)
            shown = browser.run("document.querySelectorAll('#answer .sol').length")
            assert shown == len(candidates)
            needs_work = RefineOptions(threshold=when).needs_work(orm)
            assert ("it needs work" in text(browser, "#answer .story")) == needs_work
    slide(browser, when=0.3)
    browser.run("document.getElementById('keep').click()")
    assert text(browser, "#answer .sol.chosen h4").startswith("Draft")
    browser.run("document.getElementById('reset').click()")
    assert text(browser, "#answer .sol.chosen h4").startswith("Local refinement")
    assert len(models.refiner.requests) == n_requests


def test_the_test_set_is_browsed_by_outcome(browser, url, inputs, data):
    def counts() -> dict[str, int]:
        found = browser.run(
            "[...document.querySelectorAll('#filters button')].map((b) => b.textContent)"
        )
        return {name: int(n) for name, n in (label.rsplit(" ", 1) for label in found)}

    opened(browser, url)
    kinds = [item["kind"] for item in data["items"]]
    assert len(set(kinds)) > 3
    for name in ("Fixed", "Broken", "Missed", "Needless"):
        assert counts()[name] == kinds.count(name.lower())
    for threshold in (0.2, 0.7):
        slide(browser, when=threshold, where=threshold)
        again = solution_data(
            inputs, dataclasses.replace(OPTIONS, threshold=threshold), digits=None
        )["items"]
        # Where the mark stays, so does the local refinement, and the page decides as Python does.
        same = [
            (n, new)
            for n, (old, new) in enumerate(zip(data["items"], again, strict=True))
            if old["mark"]["local_sorm"] == new["mark"]["local_sorm"]
        ]
        assert len(same) > 5
        for n, item in same:
            browser.run(f"document.querySelectorAll('#list button')[{n}].click()")
            assert f"tag {item['kind']}" == browser.run(
                "document.querySelector('#detail .tag').className"
            )
    browser.run("document.getElementById('reset').click()")
    browser.run("document.getElementById('filter-fixed').click()")
    assert browser.run("document.querySelectorAll('#list button').length") == kinds.count("fixed")
    assert "questions: drafts" in text(browser, "#tally")


def test_a_link_and_a_file_bring_it_back(browser, url, models, data):
    opened(browser, url)
    slide(browser, where=0.7)
    refine(browser, "A question & more?")
    browser.run("{navigator.clipboard.writeText = (text) => { window.copied = text; }; 0}")
    browser.run("document.getElementById('copy').click()")
    wait(browser, "window.copied !== undefined")
    link = str(browser.run("window.copied"))
    browser.run(
        "{window.savedText = null; const make = URL.createObjectURL; "
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.savedText = t; }); "
        "return make(blob); }; 0}"
    )
    browser.run("document.getElementById('save').click()")
    wait(browser, "window.savedText !== null")
    saved = str(browser.run("window.savedText"))
    before = text(browser, "#answer")

    opened(browser, f"{url}/?again#{link.partition('#')[2]}")
    wait(browser, "document.getElementById('status').textContent.startsWith('Done')")
    seconds = "document.querySelector('#answer .story').lastChild.remove()"
    assert text(browser, "#question + p") is not None
    assert browser.run("document.getElementById('where').value") == "0.7"
    assert text(browser, "#answer .question") == "A question & more?"

    n_requests = len(models.student.requests)
    opened(browser, f"{url}/?file")
    put(browser, saved)
    wait(browser, "document.getElementById('status').textContent.startsWith('Opened')")
    assert text(browser, "#answer") == before
    assert len(models.student.requests) == n_requests
    browser.run(seconds)
    for change in (
        lambda found: found.pop("trace"),
        lambda found: found["trace"]["solutions"][0]["steps"].append("x"),
        lambda found: found["trace"]["solutions"][0].update(orm=["<b>"] * 4),
        lambda found: found["trace"].update(solutions=[]),
        lambda found: found["settings"].update(when=7),
    ):
        bad = json.loads(saved)
        change(bad)
        browser.run("document.getElementById('problem').textContent = ''")
        put(browser, json.dumps(bad))
        wait(browser, "document.getElementById('problem').textContent.includes('no file of')")

    item = data["items"][7]
    opened(browser, f"{url}/?item#item={item['id']}&when=0.5&where=0.5")
    wait(browser, f"document.getElementById('detail').textContent.includes({item['id']!r})")


def put(browser, content: str) -> None:
    browser.run(
        f"{{const d = new DataTransfer(); d.items.add(new File([{json.dumps(content)}], 'x.json'));"
        "const f = document.getElementById('file'); f.files = d.files; "
        "f.dispatchEvent(new Event('change')); 0}"
    )


def test_it_works_by_keyboard_and_has_names(browser, url):
    opened(browser, url)
    browser.run("document.getElementById('question').focus()")
    browser.call("Input.insertText", text="Typed?")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            modifiers=2,
            windowsVirtualKeyCode=13,
        )
    wait(browser, "document.getElementById('status').textContent.startsWith('Done')")
    assert text(browser, "#answer .question") == "Typed?"
    browser.run("document.getElementById('where').focus()")
    before = float(browser.run("document.getElementById('where').value"))
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="ArrowRight",
            code="ArrowRight",
            windowsVirtualKeyCode=39,
        )
    after = float(browser.run("document.getElementById('where').value"))
    assert after == pytest.approx(before + 0.01)
    assert text(browser, "#where-shown") == f"{after:.2f}"
    browser.run("document.querySelector('#list button').focus()")
    browser.call(
        "Input.dispatchKeyEvent",
        type="keyDown",
        key="ArrowDown",
        code="ArrowDown",
        windowsVirtualKeyCode=40,
    )
    assert browser.run("document.activeElement === document.querySelectorAll('#list button')[1]")
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    wanted = ("button", "slider", "textbox", "searchbox", "checkbox", "spinbutton", "Canvas")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and node.get("role", {}).get("value") in wanted
    ]
    assert len(named) > 20
    assert [one for one in named if not one[1].strip()] == [], named
    assert {"slider"} <= {role for role, _ in named}


def test_a_run_that_is_stopped_and_a_key(browser, models, data):
    browsed = Browsed("a-run", lambda: data)
    app = create_app(models.served, key="a-long-key", browsed=browsed)
    with live(app) as url:
        browser.open(url)
        wait(browser, "!document.getElementById('key-form').hidden")
        assert "API key" in text(browser, "#problem")
        assert browser.run("document.querySelectorAll('#list button').length") == 0
        browser.run("document.getElementById('key').value = 'a-long-key'")
        browser.run("document.getElementById('key-form').requestSubmit()")
        wait(browser, "document.querySelectorAll('#list button').length === 30")
        assert browser.run("document.getElementById('key-form').hidden")
        models.gate.clear()
        browser.run("document.getElementById('question').value = 'Slow?'")
        browser.run("document.getElementById('ask').requestSubmit()")
        wait(browser, "!document.getElementById('stop').hidden")
        browser.run("document.getElementById('stop').click()")
        wait(browser, "document.getElementById('problem').textContent === 'Stopped.'")
        models.gate.set()
        refine(browser)


def test_a_server_without_records_still_refines(browser, models):
    with live(create_app(models.served)) as url:
        browser.open(url)
        wait(browser, "document.getElementById('tokens').value === '300'")
        assert browser.run("document.getElementById('solutions').hidden")
        refine(browser)
        assert browser.run("document.querySelectorAll('#answer .sol').length") == 3
