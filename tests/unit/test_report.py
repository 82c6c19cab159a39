"""The page, the terminal tables and the pooled Markdown, from made-up records."""

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

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
from glore.evaluation.decomposition import (
    CopyRow,
    Decomposition,
    LossRow,
    OracleRow,
    PlaceRow,
)
from glore.evaluation.ranking import RankingRow
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
from glore.report.table_files import to_csv, to_latex
from glore.report.tables import table_views
from glore.report.views import TableView, percent, points, to_markdown
from glore.report.weakest_part import weakest_part
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
        (value or "").startswith(("#", "data:", "tables/"))
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


def test_summary_of_a_student_that_is_the_sft_model_compares_nothing():
    problems = tuple(Problem(f"q{i}", f"question {i}", "7", None, "test") for i in range(4))
    drafts = tuple(solution(p.id, "d", ("#### 7",), "right") for p in problems)
    found = headline(evaluate(EvaluationInputs("x", problems, drafts, (), sft_drafts=drafts), FAST))
    assert found == [
        "The student is right on the same questions as the SFT model. It is the SFT model where no "
        "round of expert iteration was run or gained on dev."
    ]


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


MEASURED = {
    "figure4": ("figure4", {"accuracy, %": "accuracy"}),
    "figure4-differences": ("figure4_differences", {"points": "difference"}),
    "table3": ("table3", {"fixed, %": "fixed"}),
    "table3-differences": ("table3_differences", {"points": "difference"}),
    "figure3": ("figure3", {"all drafts": "all_drafts", "when the ORM says": "orm_gated"}),
    "table1": ("table1", {"balanced, %": "balanced", "natural, %": "natural"}),
    "table2": ("table2", {"natural, %": "natural", "bad called good": "false_positive_rate"}),
    "ranking": ("ranking", {"right above wrong, %": "above"}),
    "agreement": ("agreement", {"agreement": "agreement", "false → good": "called_good"}),
    "oracles": ("decomposition.oracles", {"accuracy, %": "accuracy", "− pipeline, points": "gain"}),
    "losses": ("decomposition.losses", {"wrong drafts, %": "share"}),
}
"""Table → its part of evaluation.json, and the field of each column."""


def test_csv_holds_the_numbers_of_evaluation_json(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(14))
    folder = build_report(run_dir).parent
    numbers = json.loads((folder / "evaluation.json").read_text())
    for table, (part, fields) in MEASURED.items():
        records = numbers
        for key in part.split("."):
            records = records[key]
        with (folder / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(records) > 0, table
        for row, record in zip(rows, records, strict=True):
            for column, field in fields.items():
                wanted = record[field] or {"value": None, "low": None, "high": None}
                for suffix, key in (("", "value"), (": low", "low"), (": high", "high")):
                    if wanted[key] is None:
                        assert row[column + suffix] in ("", "n/a"), (table, column)
                    else:
                        assert float(row[column + suffix]) == pytest.approx(100 * wanted[key])
                if wanted["value"] is not None:
                    assert int(row[f"{column}: n"]) == wanted["n"]


def test_latex_has_every_cell_as_it_is_shown(hostile):
    """Read back without LaTeX: the rows between the rules, with the escapes undone."""
    for view in table_views(hostile[1]):
        text = to_latex(view)
        assert re.fullmatch(r"[\x00-\x7f‘’]*", text), view.id
        body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
        assert len(body) == len(view.rows)
        for line, cells in zip(body, view.text_rows, strict=True):
            found = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
            assert [from_latex(c) for c in found] == list(cells)


def test_latex_escapes_what_it_would_read_as_markup():
    nasty = r"a_b & 5 % #1 $x$ {y} ~ ^ \input{/etc/passwd} <x|y>"
    view = TableView("x", nasty, nasty, ("name", nasty), (("[a]", nasty),))
    body = to_latex(view)
    assert r"\input" not in body
    assert r"\textbackslash{}input\{/etc/passwd\}" in body
    line = next(x for x in body.splitlines() if x.startswith("{}[a]"))
    cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
    assert [from_latex(c) for c in cells] == ["[a]", nasty]


def from_latex(cell: str) -> str:
    cell = re.sub(r"^\\textbf\{(.*)\}$", r"\1", cell).removeprefix("{}")
    for command, sign in (
        ("$-$", "−"),
        (r"$\cdot$", "·"),
        (r"$\cup$", "∪"),
        (r"$\rightarrow$", "→"),
        ("``", "“"),
        ("''", "”"),
        ("--", "–"),
        (r"\textbackslash{}", "\0"),
        (r"\textasciitilde{}", "~"),
        (r"\textasciicircum{}", "^"),
        (r"\textless{}", "<"),
        (r"\textgreater{}", ">"),
        (r"\textbar{}", "|"),
    ):
        cell = cell.replace(command, sign)
    return re.sub(r"\\([&%$#_{}])", r"\1", cell).replace("\0", "\\")


def test_csv_of_cells_without_a_number():
    view = TableView(
        "x",
        "X",
        "",
        ("what", "share, % [95 %]", "n"),
        (("a, b", Estimate(0.1, 0.05, 0.3, 9), 9), ("c", Estimate(None, None, None, 0), 0)),
    )
    assert list(csv.reader(io.StringIO(to_csv(view)))) == [
        ["what", "share, %", "share, %: low", "share, %: high", "share, %: n", "n"],
        ["a, b", "10.0", "5.0", "30.0", "9", "9"],
        ["c", "", "", "", "0", "0"],
    ]


def with_losses(
    e, *, copied=0.0, place_gain=(0.1, -0.1, 0.3), lost=(1, 5, 2), student=10, orm=0.7, ranks=0.7
):
    """An evaluation of 40 drafts with made-up parts; `lost`: where, how, which."""

    def estimate(k, n=20):
        return Estimate(k / n, 0.0, 1.0, n)

    made = Decomposition(
        "truth",
        (OracleRow("which", estimate(1), Difference(lost[2] / 40, 0, 1, 40, lost[2], 0, 1.0)),),
        tuple(LossRow(p, estimate(k)) for p, k in (("where", lost[0]), ("how", lost[1]))),
        (PlaceRow("right place", estimate(10), estimate(5)),),
        Difference(*place_gain, 20, 0, 0, None),
        (CopyRow("global", estimate(20 * copied)),),
    )
    judged = [
        dataclasses.replace(r, balanced=Estimate(orm, orm - 0.1, orm + 0.1, 40)) for r in e.table2
    ]
    counts = dataclasses.replace(e.counts, n_drafts=40, n_drafts_right=student)
    above = RankingRow("orm", Estimate(ranks, ranks - 0.1, ranks + 0.1, 40), 99)
    return dataclasses.replace(
        e, decomposition=made, table2=tuple(judged), ranking=(above,), counts=counts
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "how, the refiner: 6 of 20 wrong drafts"),
        ({"lost": (0, 0, 3)}, "when and which, the ORM's choice"),
        ({"lost": (9, 1, 0)}, "how, the refiner: 10 of 20"),
        ({"lost": (9, 1, 0), "place_gain": (0.3, 0.1, 0.5)}, "where: 9 of 20 wrong drafts"),
        ({"copied": 0.6}, "the refiner copies the wrong draft"),
        ({"student": 2}, r"the student is too weak \(2 of 40"),
        ({"orm": 0.55}, "the ORM is at chance on final answers"),
        ({"ranks": 0.55}, "the ORM ranks the samples of one question at chance"),
        ({"orm": 0.55, "ranks": 0.55}, "the ORM is at chance on final answers"),
        ({"orm": 0.55, "copied": 0.5}, "the refiner copies .*; the ORM is at chance"),
    ],
)
def test_the_weakest_part(hostile, changed, said):
    found = with_losses(hostile[1], **changed)
    assert re.search(said, weakest_part(found) or "")
    assert weakest_part(found) in headline(found)


def test_no_weakest_part_without_losses_or_refinements(hostile):
    assert weakest_part(with_losses(hostile[1], lost=(0, 0, 0))) is None
    assert weakest_part(dataclasses.replace(hostile[1], decomposition=None)) is None


def test_an_evaluation_of_the_release_before_is_made_again(tmp_path):
    """It has no decomposition; the records do."""
    run_dir = write_run(tmp_path, fake_inputs(10))
    recorded(run_dir)
    build_report(run_dir)
    path = run_dir / "report" / "evaluation.json"
    now = path.read_text()
    older = json.loads(now)
    del older["decomposition"]
    path.write_text(json.dumps(older))
    build_report(run_dir)
    assert path.read_text() == now


def test_report_of_a_run_folder(tmp_path):
    run_dir = write_run(tmp_path, fake_inputs(10))
    finish_stage(run_dir, "test_drafts", seconds=75.0, tokens=1234, counts={"solutions": 10})
    screen = io.StringIO()
    print_tables(run_dir, Console(file=screen, width=150))
    assert "Table 3" in screen.getvalue()
    assert "20.3·28.1" in screen.getvalue()
    path = build_report(run_dir)
    page = path.read_text()
    files = re.findall(r'href="(tables/[^"]+)"', page)
    assert {f.rsplit(".", 1)[1] for f in files} == {"csv", "tex"}
    assert {str(f.relative_to(path.parent)) for f in (path.parent / "tables").iterdir()} == set(
        files
    )
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
    assert made.student.sft.lora is None, "a section that is not there gets no defaults"
    recorded(run_dir, **{"student.sft.lora.r": 4})
    found = made_with(run_dir, ["evaluate"]).student.sft.lora
    assert found is not None
    assert (found.r, found.save) == (4, "merged")


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
