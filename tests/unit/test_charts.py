"""Charts and numbers of studies: what is drawn, and what stands in the files beside."""

from __future__ import annotations

import csv
import io
import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.report.axes import x_axis
from glore.report.charts import (
    DotChart,
    Dots,
    Line,
    LineChart,
    Point,
    draw,
    standalone,
    table,
)
from glore.report.looks import LOOKS, SPARE, looks
from glore.report.studied import StudySection, write_study
from glore.report.svg import columns
from glore.report.table_files import to_csv
from glore.statistics import Difference, Estimate
from glore.studies import measured
from glore.studies.measured import Measured

SVG = "{http://www.w3.org/2000/svg}"


def estimate(value: float, n: int = 50) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, n)


def curve(name: str, *values: float) -> Line:
    return Line(name, tuple(Point(2.0**i, estimate(v)) for i, v in enumerate(values)))


CHART = LineChart(
    "curves",
    "Accuracy <against> K",
    "Bands: 95 % intervals.",
    "K",
    "accuracy, %",
    (curve("SORM", 0.4, 0.5, 0.6), curve("one & another", 0.3, 0.3, 0.35)),
    "log",
)


def test_a_line_chart_has_a_line_a_band_and_dots_for_every_method() -> None:
    root = ET.fromstring(standalone(CHART))
    classes = [e.get("class") for e in root.iter() if e.get("class")]
    assert classes.count("band sorm") == 1
    dots = [e for e in root.iter(f"{SVG}circle") if e.get("class") == "dot sorm"]
    assert len(dots) == 4  # three points and the legend
    places = [float(d.get("cx") or 0) for d in dots[:3]]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1]), "K doubles: log scale"
    heights = [float(d.get("cy") or 0) for d in dots[:3]]
    assert heights == sorted(heights, reverse=True), "higher shares stand higher"
    texts = "".join(root.itertext())
    assert "accuracy, %" in texts
    assert "one & another" in texts
    assert "prefers-color-scheme: dark" in texts
    assert "@media print" in texts
    ground = next(e for e in root.iter(f"{SVG}rect"))
    assert ground.get("class") == "ground", (
        "light text needs a dark ground, whatever shows the file"
    )
    sizes = [float(n) for n in (root.get("viewBox") or "").split()]
    assert [float(ground.get(a) or 0) for a in ("x", "y", "width", "height")] == sizes


def test_all_points_are_in_the_table_of_a_chart() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(table(CHART)))))
    assert rows[0] == [
        "method",
        "K",
        *(f"accuracy, %{end}" for end in ("", ": low", ": high", ": n")),
        "n",
    ]
    assert [(r[0], r[1], float(r[2])) for r in rows[1:4]] == [
        ("SORM", "1", 40.0),
        ("SORM", "2", 50.0),
        ("SORM", "4", 60.0),
    ]
    assert len(rows) == 7


def test_a_dot_chart_puts_whiskers_where_the_interval_ends() -> None:
    chart = DotChart(
        "dots",
        "Fixed",
        "",
        "fixed, %",
        (
            Dots("first", (("global", estimate(0.2)), ("local + SORM", estimate(0.5)))),
            Dots("second", (("global", Estimate(None, None, None, 0)),)),
        ),
    )
    root = ET.fromstring(standalone(chart))
    (dot,) = (
        e for e in root.iter(f"{SVG}circle") if "first, global: 20.0" in "".join(e.itertext())
    )
    (line,) = (e for e in root.iter(f"{SVG}line") if e.get("class") == "whisker orm")
    middle = (float(line.get("x1") or 0) + float(line.get("x2") or 0)) / 2
    assert float(dot.get("cx") or 0) == pytest.approx(middle, abs=0.1)
    assert "second" in "".join(root.itertext())
    assert len(table(chart).rows) == 3


def test_a_method_looks_the_same_in_every_chart() -> None:
    assert looks(["new", "SORM"])["SORM"] == looks(["SORM"])["SORM"] == LOOKS["SORM"]
    many = looks(["majority", *(f"m{i}" for i in range(7))])
    assert len(set(many.values())) == len(many)
    more = [f"m{i}" for i in range(11)]
    assert len({looks([*LOOKS, *more])[name] for name in more}) == len(more), "more than SPARE"
    one = "GLoRe, right drafts in training", "+ right drafts in training"
    assert len({LOOKS[name] for name in one}) == 1, "two charts call the same method so"
    assert "look4" not in many.values(), "it has the colour of majority"
    assert looks(["ORM", "SORM", "other"])["other"] == "look3"
    assert set(LOOKS.values()) - set(SPARE) == {"orm", "balanced_orm", "sorm", "majority", "pass"}


def test_the_ways_of_the_budget_have_looks_of_their_own() -> None:
    ways = [
        *("greedy", "majority", "best of N by ORM", "samples until the ORM accepts", "RISE"),
        *("RISE, majority of turns", "RISE until the ORM accepts", "GLoRe once, every draft"),
        *("GLoRe", "GLoRe, right drafts in training"),
    ]
    assert len(set(looks(ways).values())) == len(ways)


@given(
    st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=30, unique=True),
    st.booleans(),
)
def test_labels_of_an_axis_do_not_overlap(values: list[float], is_log: bool) -> None:
    x, marks = x_axis(values, 46, 468, is_log=is_log)
    assert marks
    ends = [(x(m) - 3 * len(f"{m:g}"), x(m) + 3 * len(f"{m:g}")) for m in marks]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert all(46 - 1e-6 <= x(v) <= 468 + 1e-6 for v in (*values, *marks))


def test_an_axis_of_tokens_has_several_marks() -> None:
    _, marks = x_axis([28.2, 54.2, 76.1, 82.0, 115, 126, 143, 172, 236], 46, 468, is_log=True)
    assert marks == [50, 100, 200]
    assert x_axis([1, 2, 4, 8, 16, 96], 46, 468, is_log=True)[1] == [1, 2, 4, 8, 16, 96]


def test_the_diagonal_is_y_equals_x_wherever_the_points_are() -> None:
    line = Line("SORM on steps", (Point(0.366076, estimate(0.5)), Point(0.7215, estimate(0.6))))
    chart = LineChart("c", "t", "", "predicted", "% good", (line,), diagonal=True)
    root = ET.fromstring(standalone(chart))
    (diagonal,) = (e for e in root.iter(f"{SVG}line") if e.get("class") == "reference")
    x1, x2, y1, y2 = (float(diagonal.get(a) or 0) for a in ("x1", "x2", "y1", "y2"))
    dot = next(e for e in root.iter(f"{SVG}circle"))
    assert (float(dot.get("cx") or 0) - x1) / (x2 - x1) == pytest.approx(0.366, abs=0.01)
    assert (float(dot.get("cy") or 0) - y1) / (y2 - y1) == pytest.approx(0.5, abs=0.01)
    marks = [e.text for e in root.iter(f"{SVG}text") if e.text in ("0.2", "0.8", "0.366076")]
    assert marks == ["0.2", "0.8"]


def test_long_names_stay_inside_the_figure() -> None:
    name = (
        "models/a-reward-model-with-a-long-name/revision-20240707 of somebody & others, fine-tuned"
    )
    rows = tuple(
        Dots(c, (("ORM", estimate(0.4)), (name, estimate(0.5)))) for c in (name, "数学" * 20)
    )
    root = ET.fromstring(standalone(DotChart("d", "t", "", "F1, %", rows)))
    labels = [e for e in root.iter(f"{SVG}text") if e.get("text-anchor") == "start"]
    assert sum("…" in (e.text or "") for e in labels) >= 3, "cut, not drawn over the dots"
    for e in labels:
        inside = 176 if float(e.get("x") or 0) == 0 else 480
        assert float(e.get("x") or 0) + 6.6 * columns(e.text or "") <= inside, e.text


@pytest.mark.parametrize(
    "chart", [LineChart("x", "t", "", "K", "y", ()), DotChart("x", "t", "", "y", ())]
)
def test_a_chart_without_points_says_so(chart: LineChart | DotChart) -> None:
    assert "nothing to draw" in draw(chart)


def numbers() -> list[Measured]:
    return [
        measured.share("t", "a", "right", estimate(0.5), x=1),
        measured.difference("t", "a", "gain", Difference(0.1, 0.05, 0.15, 50, 7, 2, 0.1)),
        measured.number("t", "a", "tokens", 1234.0),
        measured.share("t", "b", "right", estimate(0.25), x=1),
        measured.share("other", "b", "right", None),
    ]


def test_numbers_become_a_table_with_a_row_and_a_column_each() -> None:
    view = measured.pivot(numbers(), "t", "T", "", "method", n_column=True)
    assert view.columns == ("method", "right, % [95 %]", "gain, points [95 %]", "tokens", "n")
    assert view.text_rows == (
        ("a", "50.0 [40.0, 60.0]", "+10.0 [+5.0, +15.0]", "1,234", "50"),
        ("b", "25.0 [15.0, 35.0]", "–", "–", "50"),
    )
    assert measured.find(numbers(), "t", "b", "right").value == 0.25
    with pytest.raises(KeyError):
        measured.find(numbers(), "t", "c", "right")


def test_numbers_become_charts() -> None:
    line_chart = measured.line_chart(numbers(), "t", "T", "", "x", "y", column="right")
    assert [line.name for line in line_chart.lines] == ["a", "b"]
    dots = measured.dot_chart(numbers(), "t", "T", "", "y", by_row=False)
    assert [(row.category, [m for m, _ in row.values]) for row in dots.rows] == [
        ("right", ["a", "b"])
    ]


def test_the_files_of_a_study(tmp_path) -> None:  # type: ignore[no-untyped-def]
    view = measured.pivot(numbers(), "t", "T", "", "method")
    write_study(tmp_path, StudySection("s", "About it.", (view,), (CHART,), ("It works.",)))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["tables.md", "t.csv", "t.tex", "curves.csv", "curves.tex", "curves.svg"]
    )
    text = (tmp_path / "tables.md").read_text()
    assert text.startswith("# s\n\nAbout it.\n\n- It works.\n")
    assert "### T" in text
