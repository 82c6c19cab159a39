"""The report in a real browser: it runs, it stays harmless, it fits wide and narrow windows. Skips
where no Chromium is installed.
"""

import dataclasses

import pytest

from glore.config import LabelSettings
from glore.evaluation import EvaluationOptions, evaluate
from glore.report.page import RunFacts, StageFacts, render_page
from support.chromium import Browser, find_chromium
from support.contrast import contrasts, too_low
from support.fake_records import fake_inputs

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH; install one or set GLORE_CHROMIUM"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    inputs = dataclasses.replace(fake_inputs(30, hostile=True), name="a-run")
    evaluation = evaluate(inputs, EvaluationOptions(bootstrap_samples=100), LabelSettings())
    facts = RunFacts(
        "Trained on made-up records.",
        (StageFacts("sft", 60.0, 1000, (("rows", 10.0),)),),
        "name: a-run\n",
        "glore",
    )
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render_page(evaluation, inputs, facts))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.mark.parametrize("width", [1400, 420])
def test_page_runs_without_complaint_and_fits(browser, page, width):
    browser.console.clear()
    browser.requests.clear()
    browser.open(page, width)
    assert browser.run("document.title") == "a-run · glore report"
    assert browser.run("document.querySelectorAll('#list button').length") == 30
    assert browser.run("document.querySelectorAll('#detail .step').length") > 3
    assert browser.run("document.querySelectorAll('svg').length") == 8
    # Tables scroll in their own boxes; the page itself never scrolls sideways.
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.console == []
    assert [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser, page, scheme):
    browser.open(page, scheme=scheme)
    is_dark = browser.run("matchMedia('(prefers-color-scheme: dark)').matches")
    assert is_dark == (scheme == "dark")
    for n in (0, 1, 2, 3):
        browser.run(f"document.querySelectorAll('#list button')[{n}].click()")
        found = contrasts(browser)
        assert len(found) > 300
        assert too_low(found) == set()


def test_text_that_can_not_be_read_is_found(browser, page):
    browser.open(page)
    browser.run("document.querySelector('h1').style.color = '#a0a0a0'")
    browser.run("document.querySelector('footer').style.opacity = 0.5")
    assert {c.where for c in too_low(contrasts(browser))} >= {"H1.", "FOOTER."}


def test_hostile_text_is_shown_and_not_run(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#list button').click()")
    assert "</script><script>" in browser.run(
        "document.querySelector('#detail .question').textContent"
    )
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.run("document.title") == "a-run · glore report"


def test_policy_stops_what_glore_did_not_write(browser, page):
    browser.open(page)
    browser.run(
        "{const s = document.createElement('script'); s.textContent = 'document.title = 1'; "
        "document.body.append(s); 0}"
    )
    assert browser.run("document.title") == "a-run · glore report"


def test_filter_search_and_choice(browser, page):
    browser.open(page)
    wanted = int(
        browser.run(
            "[...document.querySelectorAll('#filters button')].find((b) => "
            "b.textContent.startsWith('Fixed')).textContent.slice(6)"
        )
    )
    browser.run(
        "[...document.querySelectorAll('#filters button')].find((b) => "
        "b.textContent.startsWith('Fixed')).click()"
    )
    assert browser.run("document.querySelectorAll('#list button').length") == wanted > 0
    assert "fixed" in browser.run("document.querySelector('#detail .tag').textContent")
    assert browser.run("document.querySelectorAll('#detail .sol.chosen').length") == 1
    assert "right" in browser.run("document.querySelector('#detail .sol.chosen h4').textContent")
    browser.run("[...document.querySelectorAll('#filters button')][0].click()")
    browser.run(
        "{const i = document.getElementById('search'); i.value = 'STORY 0-17'; "
        "i.dispatchEvent(new Event('input')); 0}"
    )
    assert browser.run("document.querySelectorAll('#list button').length") == 1
    assert "test-17 " in browser.run("document.querySelector('#detail').textContent")
    browser.run(
        "{const i = document.getElementById('search'); i.value = 'nothing like it'; "
        "i.dispatchEvent(new Event('input')); 0}"
    )
    assert browser.run("document.getElementById('list').textContent") == "Nothing matches."
