"""The page, the terminal tables and the pooled Markdown, from made-up records."""

import dataclasses
import io
import json
import re
import runpy
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from glore.config import (
    Gsm8kTaskSettings,
    LabelSettings,
    StoriesSettings,
    StoriesTaskSettings,
    load_config,
    load_run,
    resolved_recipe,
)
from glore.errors import ConfigError, RunError
from glore.evaluation import EvaluationInputs, EvaluationOptions, evaluate, read_evaluation
from glore.pipeline.fingerprints import flat_settings
from glore.pipeline.folder import write_json
from glore.pipeline.marks import DoneMark
from glore.pipeline.recorded import made_with
from glore.records import Problem
from glore.report import build_report, print_tables
from glore.report.figures import figures
from glore.report.page import RunFacts, render_page
from glore.report.solution_browser import MAX_PROBLEMS, MAX_STEPS, embedded, solution_data
from glore.report.summary import headline
from glore.report.tables import table_views
from glore.report.views import percent, points, to_markdown
from glore.statistics import Difference, Estimate
from support.fake_records import fake_inputs, finish_stage, solution, write_run

FAST = EvaluationOptions(bootstrap_samples=100)
FACTS = RunFacts("trained <b>things</b>", (), "name: x & y\n", "glore 0")


class Reader(HTMLParser):
    """Collects tags, attributes and the text of the data element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def hostile():
    inputs = fake_inputs(12, hostile=True)
    inputs = dataclasses.replace(inputs, name='<img src=x onerror="alert(1)">')
    return inputs, evaluate(inputs, FAST, LabelSettings())


def test_page_reads_nothing_from_elsewhere_and_runs_only_its_own_script(hostile):
    inputs, evaluation = hostile
    page = render_page(evaluation, inputs, FACTS)
    reader = Reader(page)
    assert len(reader.scripts) == 2
    assert "img" not in reader.tags
    assert not [a for a in reader.attributes if a[0].startswith("on") or a[0] in ("src", "style")]
    assert all(
        (value or "").startswith(("#", "data:"))
        for name, value in reader.attributes
        if name == "href"
    )
    policy = next(
        value
        for name, value in reader.attributes
        if name == "content" and value and value.startswith("default-src")
    )
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"http-equiv|https?://www\.w3\.org/\S+", "", page)


def test_embedded_data_cannot_end_its_element_and_comes_back_whole(hostile):
    inputs, evaluation = hostile
    data = Reader(render_page(evaluation, inputs, FACTS)).scripts[0]
    assert not set("<>&") & set(data)
    assert data.isascii()
    found = json.loads(data)
    assert found["items"][0]["question"] == inputs.problems[0].question
    assert json.loads(embedded({"x": "</script>\u2028\ud800"})) == {"x": "</script>\u2028\ud800"}


def test_figures_are_well_formed_and_tell_a_screen_reader_what_they_are(hostile):
    drawings = figures(hostile[1])
    assert len(drawings) == 8
    for _, _, drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("aria-label")
        assert not [v for e in root.iter() for v in e.attrib.values() if "nan" in v.split()]


def test_browser_data_says_what_happened_to_each_draft():
    steps, problem = ("a = 1", "#### 7"), Problem("q", "question", "7", None, "test")
    draft = solution("q", "d", steps, "wrong")
    better = solution("q", "g", steps, "right", "global", draft.id)
    base = EvaluationInputs("x", (problem,), (draft,), (), refinements=(better,))
    from support.fake_records import scores

    def item(p_draft, p_better):
        scored = (
            scores(draft, "orm", 0.9, p_draft),
            scores(better, "orm", 0.9, p_better),
            scores(draft, "sorm", 0.5, 0.9),
        )
        return solution_data(dataclasses.replace(base, scores=scored), FAST)["items"][0]

    fixed, missed = item(0.2, 0.8), item(0.8, 0.2)
    assert (fixed["kind"], missed["kind"]) == ("fixed", "missed")
    assert [s["chosen"] for s in fixed["solutions"]] == [False, True]
    assert fixed["mark"] == {"local_orm": 1, "local_sorm": 0}
    assert [s["sorm"] for s in fixed["solutions"][0]["steps"]] == [0.5, 0.9]


def test_browser_data_is_bounded():
    many = tuple(Problem(f"q{i}", "x" * 10_000, "7", None, "test") for i in range(MAX_PROBLEMS + 5))
    drafts = tuple(solution(p.id, "d", ["y" * 5000] * 200, "wrong") for p in many)
    data = solution_data(EvaluationInputs("big", many, drafts, ()), FAST)
    assert (len(data["items"]), data["total"]) == (MAX_PROBLEMS, MAX_PROBLEMS + 5)
    shown = data["items"][0]["solutions"][0]
    assert (len(shown["steps"]), shown["more"]) == (MAX_STEPS, 200 - MAX_STEPS)
    assert max(len(s["text"]) for s in shown["steps"]) <= 600


def test_numbers_as_text():
    assert percent(Estimate(0.5421, 0.5, 0.6, 10)) == "54.2 [50.0, 60.0]"
    assert percent(Estimate(None, None, None, 0)) == percent(None) == "–"
    assert points(Difference(-0.02, -0.05, 0.01, 9, 1, 2, 0.5)) == "−2.0 [−5.0, +1.0]"


def test_summary_says_when_nothing_was_shown():
    verdicts = ["right", "wrong"] * 4
    problems = tuple(Problem(f"q{i}", f"question {i}", "7", None, "test") for i in range(8))
    drafts = tuple(solution(f"q{i}", "d", ("a", "#### 7"), v) for i, v in enumerate(verdicts))
    sft = tuple(
        solution(f"q{i}", "sft", ("a", "#### 7"), v) for i, v in enumerate(reversed(verdicts))
    )
    found = headline(evaluate(EvaluationInputs("x", problems, drafts, (), sft_drafts=sft), FAST))
    assert len(found) == 1
    assert "no difference shown" in found[0]


def test_page_of_a_run_with_next_to_nothing_in_it():
    problem = Problem("q", "question", "7", None, "test")
    inputs = EvaluationInputs(
        "bare", (problem,), (solution("q", "d", (), "wrong", answer=None),), ()
    )
    page = render_page(evaluate(inputs, FAST), inputs, FACTS)
    assert "Table 5" in page
    assert "name: x &amp; y" in page
    assert "trained &lt;b&gt;" in page


def test_markdown_has_one_cell_per_column(hostile):
    for view in table_views(hostile[1]):
        rows = [line for line in to_markdown(view).splitlines() if line.startswith("|")]
        assert len(rows) == len(view.rows) + 2
        assert all(len(row) == len(view.columns) for row in view.rows), view.id


def test_report_of_a_run_folder(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(10))
    finish_stage(run_dir, "test_drafts", seconds=75.0, tokens=1234, counts={"solutions": 10})
    screen = io.StringIO()
    print_tables(run_dir, Console(file=screen, width=150))
    assert "Table 3" in screen.getvalue()
    assert "20.3·28.1" in screen.getvalue()
    path = build_report(run_dir)
    page = path.read_text()
    assert path == run_dir / "report" / "index.html"
    assert "1,234" in page
    # A damaged or missing file is made again from the records.
    numbers = run_dir / "report" / "evaluation.json"
    before = numbers.read_text()
    numbers.write_text("{")
    assert build_report(run_dir).read_text() == page
    assert numbers.read_text() == before


def recorded(run_dir, **settings):
    """The run's settings as recorded by two stages, the first of which made the second."""
    made = {
        "seed": 0,
        "labels.rollouts": 8,
        "evaluation.threshold": 0.5,
        "evaluation.bootstrap_samples": 100,
        **settings,
    }
    for stage, inputs in (("test_drafts", {}), ("evaluate", {"test_drafts": "f"})):
        mark = DoneMark(
            stage,
            "f",
            made,
            inputs,
            1,
            1,
            {},
            1.0,
            0,
            {},
            {},
            {"glore": "0.1.0"},
            "2026-01-01T00:00:00+00:00",
        )
        write_json(run_dir / "stages" / stage / "done.json", dataclasses.asdict(mark))


@pytest.mark.parametrize(
    "lora",
    [
        {"student.sft.lora": None},
        {"student.sft.lora.r": 4, "student.sft.lora.target_modules.0": "q_proj"},
    ],
)
def test_the_report_describes_how_the_records_were_made_not_what_config_says_now(tmp_path, lora):
    run_dir = write_run(tmp_path, fake_inputs(10))
    people = {
        "task.stories.people.0": 4,
        "task.stories.people.1": 5,
        "content of task.path": "abc",
        "engine.kind": "vllm",
    }
    recorded(
        run_dir,
        **{"labels.rollouts": 5, "evaluation.threshold": 0.3, "no.such": 1, **people, **lora},
    )
    made = made_with(run_dir, ["evaluate"])
    assert (made.labels.rollouts, made.evaluation.threshold, made.task.stories.people) == (
        5,
        0.3,
        (4, 5),
    )
    assert (made.student.sft.lora and made.student.sft.lora.target_modules) == (
        ("q_proj",) if len(lora) > 1 else None
    )
    page = build_report(run_dir).read_text()
    assert "5 verifying rollouts per step" in page
    assert "  threshold: 0.3\n" in page
    assert "changed in config.yaml since: evaluation.threshold: 0.3 → 0.5" in page
    assert read_evaluation(run_dir / "report" / "evaluation.json").options.threshold == 0.3
    assert "glore 0.1.0" in page


def test_a_newer_setting_that_no_mark_notes_had_its_default(tmp_path):
    """Marks leave it out then, and config.yaml may have another value since."""
    run_dir = write_run(tmp_path, fake_inputs(10))
    with (run_dir / "config.yaml").open("a") as config:
        config.write("reward: {top_p: 0.5, top_k: 7}\n")
    recorded(run_dir, **{"reward.top_k": 3, "reward.samples": 9})
    made = made_with(run_dir, ["evaluate"])
    assert (made.reward.top_p, made.reward.top_k, made.reward.samples) == (1.0, 3, 9)
    assert load_run(run_dir).reward.top_p == 0.5


def test_records_of_another_kind_of_task_keep_its_settings(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(10))
    with (run_dir / "config.yaml").open("a") as config:
        config.write("task: {kind: gsm8k, path: x, n_dev: 7}\nbase: {model: m}\n")
    assert load_run(run_dir).task == Gsm8kTaskSettings(path="x", n_dev=7)
    stories = StoriesTaskSettings(stories=StoriesSettings(people=(4, 5)))
    recorded(run_dir, **flat_settings(stories.fingerprint_fields(), "task"))
    assert made_with(run_dir, ["evaluate"]).task == stories


def test_numbers_of_an_evaluation_that_is_not_done_are_made_again(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(10))
    recorded(run_dir)
    build_report(run_dir)
    numbers = run_dir / "report" / "evaluation.json"
    text = numbers.read_text()
    numbers.write_text(
        text.replace('"n_drafts":10', '"n_drafts":11').replace('"n_drafts": 10', '"n_drafts": 11')
    )
    assert numbers.read_text() != text
    (run_dir / "stages" / "evaluate" / "done.json").unlink()
    build_report(run_dir)
    assert numbers.read_text() == text


def test_a_report_of_what_cannot_be_read_is_refused(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(10))
    recorded(run_dir, **{"labels.rollouts": "many"})
    with pytest.raises(
        RunError, match=r"note settings that this release can't read \('labels.rollouts'"
    ):
        build_report(run_dir)
    (run_dir / "stages" / "test_drafts" / "done.json").write_text("{")
    with pytest.raises(RunError, match=r"test_drafts/done\.json can't be read"):
        print_tables(run_dir, Console(file=io.StringIO()))
    recorded(run_dir)
    text = resolved_recipe(load_config(run_dir / "config.yaml"))
    (run_dir / "config.yaml").write_text(text[: len(text) // 2])
    with pytest.raises(ConfigError, match="was cut short"):
        build_report(run_dir)


def test_an_unfinished_run_is_an_error(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(3))
    (run_dir / "stages" / "test_samples" / "part-00000.parquet").unlink()
    with pytest.raises(RunError, match="test_samples"):
        build_report(run_dir)


def test_pooled_markdown(tmp_path):
    runs = [write_run(tmp_path, fake_inputs(8, seed=s)) for s in (1, 2)]
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "pool_seeds.py"))
    text = script["report"](runs)
    assert "| fake-1 | 8 |" in text
    assert "| **all** | **16** |" in text
    (runs[1] / "config.yaml").write_text(
        (runs[1] / "config.yaml").read_text().replace("100", "200")
    )
    with pytest.raises(Exception, match="different settings"):
        script["report"](runs)
