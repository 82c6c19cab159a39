"""An evaluation → one self-contained HTML page: no network, no fonts or scripts from elsewhere,
every text escaped.

The page's security policy allows only the script and the style sheet that glore wrote, by their
hashes. Even a mistake in the escaping would not let a model's text run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from html import escape

from glore.evaluation import Evaluation, EvaluationInputs
from glore.evaluation.headline import accuracy, fixed_by_both, gain, sorm_steps
from glore.evaluation.refinement import GREEDY, RERANKED
from glore.progress import duration
from glore.report.assets import asset, policy
from glore.report.charts import draw
from glore.report.figures import figures
from glore.report.solution_browser import embedded, solution_data
from glore.report.studied import StudySection
from glore.report.summary import headline
from glore.report.table_files import TABLES
from glore.report.tables import table_views
from glore.report.views import TableView, percent, points

__all__ = ["RunFacts", "StageFacts", "render_page"]


@dataclasses.dataclass(frozen=True, slots=True)
class StageFacts:
    """Time, tokens and counts of one finished stage."""

    name: str
    seconds: float
    tokens: int
    counts: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...] = ()
    """Signs that it failed although it finished."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts about the run that are not in its evaluation."""

    trained: str
    """What was trained on what, as a few sentences."""
    stages: tuple[StageFacts, ...]
    config: str
    """The resolved recipe."""
    made_by: str
    """Version line."""


def render_page(
    evaluation: Evaluation,
    inputs: EvaluationInputs,
    facts: RunFacts,
    studies: Sequence[StudySection] = (),
) -> str:
    """The whole page as HTML text."""
    style = asset("glore.report", "chart.css", "page.css")
    script = asset("glore.report", "solutions.js", "page.js")
    body = "\n".join(
        (
            _header(evaluation, facts, has_studies=bool(studies)),
            _figures(evaluation),
            _browser(),
            _tables(evaluation),
            _studies(studies),
            _cost(facts),
            _footer(facts),
        )
    )
    data = embedded(solution_data(inputs, evaluation.options))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(evaluation.name)} · glore report</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="solutions-data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _header(e: Evaluation, facts: RunFacts, has_studies: bool) -> str:
    sentences = "".join(f"<li>{_intervals(s)}</li>" for s in headline(e))
    nav = "".join(
        f'<a href="#{place}">{name}</a>'
        for place, name in (
            ("summary", "Summary"),
            ("figures", "Figures"),
            ("solutions", "Solutions"),
            ("tables", "Tables"),
            *((("studies", "Studies"),) if has_studies else ()),
            ("cost", "Time and tokens"),
        )
    )
    return f"""<nav aria-label="Sections"><div class="wrap">{nav}</div></nav>
<div class="wrap">
<header id="summary"><h1>{escape(e.name)}</h1><p class="muted">{escape(facts.trained)}</p></header>
<div class="tiles">{_tiles(e)}</div>
<ul class="summary">{sentences}</ul>{_warnings(facts)}
<p class="note">Square brackets: 95 % intervals.
Differences are paired: both sides answer the same questions.</p>"""


def _warnings(facts: RunFacts) -> str:
    found = "".join(
        f"<li><b>{escape(s.name)}</b>: {escape(text)}</li>"
        for s in facts.stages
        for text in s.warnings
    )
    if not found:
        return ""
    return f'<section class="warnings"><h2>Warnings</h2><ul class="summary">{found}</ul></section>'


def _tiles(e: Evaluation) -> str:
    greedy, reranked = accuracy(e, GREEDY), accuracy(e, RERANKED)
    tiles: list[tuple[str, str, str]] = []
    if greedy is not None and reranked is not None:
        tiles += [
            ("main", points(gain(e, GREEDY)), "points gained over the greedy draft"),
            ("", percent(greedy), "greedy draft, % right"),
            ("", percent(reranked), "refined and reranked, % right"),
        ]
    elif e.table5:
        tiles.append(("main", percent(e.table5[-1].greedy), "greedy, % right"))
    fixed = fixed_by_both(e)
    if fixed is not None:
        tiles.append(("", percent(fixed), "of wrong drafts fixed, global ∪ local, %"))
    sorm = sorm_steps(e)
    if sorm is not None:
        tiles.append(("", percent(sorm.balanced), "SORM step accuracy, class-balanced, %"))
    return "".join(
        f'<div class="tile {kind}"><b>{_number(value)}</b><span>{escape(what)}</span></div>'
        for kind, value, what in tiles
    )


def _number(value: str) -> str:
    """`54.2 [50.1, 58.2]` → the number large, its interval small beside it."""
    number, _, interval = value.partition(" ")
    return f"{escape(number)} <span>{escape(interval)}</span>"


def _intervals(text: str) -> str:
    """Escaped text with muted intervals."""
    return re.sub(r"(\[[^\]]*\])", r'<span class="muted">\1</span>', escape(text))


def _figures(e: Evaluation) -> str:
    shown = "".join(_figure(*parts) for parts in figures(e))
    return f'<section id="figures"><h2>Figures</h2><div class="figures">{shown}</div></section>'


def _figure(title: str, caption: str, drawing: str, links: str = "") -> str:
    return (
        f"<figure><h3>{escape(title)}</h3><figcaption>{escape(caption)}{links}</figcaption>"
        f"{drawing}</figure>"
    )


def _browser() -> str:
    return """<section id="solutions"><h2>Solutions, step by step</h2>
<noscript><p>The solution browser needs JavaScript.
Everything else on this page works without it.</p></noscript>
<div class="controls"><span id="filters" class="controls"></span>
<input id="search" type="search"
placeholder="Search questions and steps" aria-label="Search questions and steps">
<span id="shown" class="muted" role="status"></span></div>
<div class="browser"><ul class="list panel" id="list" aria-label="Questions"></ul>
<div class="panel detail" id="detail" aria-live="polite"></div></div>
<p class="legend"><span>Probability of success after a step:
0<span class="ramp"></span>1. The colour of the step itself is the SORM's.</span>
<span>✓ / ✗: a good or a bad step, by the exact truth if the task knows it, else by rollouts</span>
<span>[BAD]: the first step that the SORM scores at or below the threshold</span>
<span>Needless: the draft was right, but the ORM called it wrong or a refinement was chosen</span>
</p></section>"""


def _tables(e: Evaluation) -> str:
    tables = "".join(_table(view) for view in table_views(e))
    return f'<section id="tables"><h2>Tables</h2>{tables}</section>'


def _studies(studies: Sequence[StudySection]) -> str:
    """A part for each study: its figures, then its tables."""
    if not studies:
        return ""
    parts = []
    for study in studies:
        figures = "".join(
            _figure(
                chart.title,
                chart.caption,
                draw(chart),
                f" {_links(study.files, chart.id, ('svg', 'csv', 'tex'))}",
            )
            for chart in study.charts
        )
        tables = "".join(_table(view, study.files) for view in study.tables)
        said = "".join(f"<li>{_intervals(sentence)}</li>" for sentence in study.findings)
        parts.append(
            f'<section id="study-{escape(study.name)}"><h3>{escape(study.name)}</h3>'
            f'<p class="note">{escape(study.about)}</p>'
            + (f'<p class="note"><b>{escape(study.stale)}</b></p>' if study.stale else "")
            + (f'<ul class="summary">{said}</ul>' if said else "")
            + (f'<div class="figures">{figures}</div>' if figures else "")
            + f"{tables}</section>"
        )
    return f'<section id="studies"><h2>Studies</h2>{"".join(parts)}</section>'


_LINK_NAMES = {"svg": "SVG", "csv": "CSV", "tex": "LaTeX"}


def _links(folder: str, name: str, suffixes: Sequence[str]) -> str:
    return " · ".join(
        f'<a href="{escape(folder)}/{escape(name)}.{suffix}">{_LINK_NAMES[suffix]}</a>'
        for suffix in suffixes
    )


def _table(view: TableView, folder: str = TABLES) -> str:
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in view.columns)
    rows = []
    for i, row in enumerate(view.text_rows):
        cells = "".join(f"<td>{_cell(c)}</td>" for c in row[1:])
        kind = ' class="key"' if i in view.headline else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    files = _links(folder, view.id, ("csv", "tex"))
    note = f'<p class="note">{escape(view.note)} {files}</p>'
    title = escape(view.title)
    return (
        f'<div class="table panel" id="{escape(view.id)}"><h3>{title}</h3>{note}'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _cell(text: str) -> str:
    return re.sub(r"(\[[^\]]*\])", r"<i>\1</i>", escape(text))


def _cost(facts: RunFacts) -> str:
    if not facts.stages:
        return '<section id="cost"></section>'
    rows = [
        (s.name, duration(s.seconds), f"{s.tokens:,}" if s.tokens else "", _counts(s.counts))
        for s in facts.stages
    ]
    rows.append(
        (
            "total",
            duration(sum(s.seconds for s in facts.stages)),
            f"{sum(s.tokens for s in facts.stages):,}",
            "",
        )
    )
    head = (
        "".join(f'<th scope="col">{c}</th>' for c in ("stage", "time", "tokens"))
        + '<th scope="col" class="wide">counts</th>'
    )
    shown = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(time)}</td><td>{tokens}</td>'
        f'<td class="wide">{escape(counts)}</td></tr>'
        for name, time, tokens, counts in rows
    )
    return (
        '<section id="cost"><h2>Time and tokens</h2>'
        '<div class="table panel"><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table></div></div></section>"
    )


def _counts(counts: Sequence[tuple[str, float]]) -> str:
    names = ((name.removeprefix("n_").replace("_", " "), value) for name, value in counts)
    return ", ".join(
        f"{name} {value:,.0f}" if float(value).is_integer() else f"{name} {value:.4g}"
        for name, value in names
    )


def _footer(facts: RunFacts) -> str:
    return (
        "<details><summary>The resolved recipe</summary>"
        f"<pre>{escape(facts.config)}</pre></details>"
        f"<footer>{escape(facts.made_by)} · Method: GLoRe, Havrilla et al. 2024 "
        "(arXiv 2402.10963). The paper’s numbers are for orientation: they come from other "
        "models, sizes and data.</footer></div>"
    )
