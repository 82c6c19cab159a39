"""The test questions of several seeds pooled: every table of the report, as Markdown.

Units are question × seed. Differences are paired within a question and seed. A question that
several seeds share is one cluster of the bootstrap. The first table shows each seed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from glore.errors import RunError
from glore.evaluation import Evaluation, evaluate, pool
from glore.evaluation.headline import (
    accuracy,
    expert,
    fixed_by_both,
    gain,
    judging_answers,
    judging_steps,
    label_rule,
)
from glore.evaluation.refinement import BEST_OF, GREEDY, RERANKED
from glore.pipeline.recorded import made_with
from glore.report.summary import headline
from glore.report.tables import table_views
from glore.report.views import TableView, percent, points, to_markdown
from glore.stages import evaluation_options, read_inputs
from glore.statistics import Difference

__all__ = ["pooled_markdown"]


def pooled_markdown(run_dirs: Sequence[Path]) -> str:
    """Folders of finished runs → all tables as Markdown. Raises RunError where they were evaluated
    with different settings, or one isn't finished.
    """
    configs = [made_with(folder, ["evaluate"]) for folder in run_dirs]
    options = [evaluation_options(c) for c in configs]
    if len({dataclasses.replace(o, seed=0) for o in options}) > 1:
        raise RunError(
            "the runs were evaluated with different settings (section evaluation of their "
            "config.yaml), so their questions can't be pooled; give runs of one recipe"
        )
    bundles = [read_inputs(d, c) for d, c in zip(run_dirs, configs, strict=True)]
    singles = [evaluate(b, o, c.labels) for b, o, c in zip(bundles, options, configs, strict=True)]
    pooled = evaluate(pool(bundles), options[0], configs[0].labels)
    sentences = "".join(f"- {s}\n" for s in headline(pooled))
    tables = [_seeds_view(singles, pooled), *table_views(pooled)]
    return f"{sentences}\n" + "\n".join(to_markdown(view) for view in tables)


COLUMNS: tuple[tuple[str, Callable[[Evaluation], str]], ...] = (
    ("n", lambda e: str(e.counts.n_drafts)),
    ("greedy, %", lambda e: percent(ei.greedy if (ei := expert(e)) else None)),
    ("EI − SFT", lambda e: points(e.ei_gain)),
    ("pass@8, %", lambda e: percent(ei.pass_8 if (ei := expert(e)) else None)),
    (
        "SORM − ORM, steps, balanced",
        lambda e: points(d.balanced if (d := judging_steps(e)) else None),
    ),
    (
        "ORM − SORM, final",
        lambda e: points(_reversed(d.natural) if (d := judging_answers(e)) else None),
    ),
    ("labels = truth, %", lambda e: percent(r.agreement if (r := label_rule(e)) else None)),
    ("union fixes, %", lambda e: percent(fixed_by_both(e))),
    ("reranked, %", lambda e: percent(accuracy(e, RERANKED))),
    ("− greedy", lambda e: points(gain(e, GREEDY))),
    ("− best of K", lambda e: points(gain(e, BEST_OF))),
)


def _seeds_view(singles: Sequence[Evaluation], pooled: Evaluation) -> TableView:
    """The headline numbers of each seed, and of all seeds together."""
    rows = tuple(
        (e.name if e is not pooled else "all", *(cell(e) for _, cell in COLUMNS))
        for e in (*singles, pooled)
    )
    return TableView(
        "seeds",
        "Seed by seed",
        "Differences in points, paired; 95 % intervals.",
        ("run", *(name for name, _ in COLUMNS)),
        rows,
        frozenset({len(singles)}),
    )


def _reversed(d: Difference) -> Difference | None:
    """Second minus first; none without a value."""
    if d.value is None or d.low is None or d.high is None:
        return None
    return dataclasses.replace(d, value=-d.value, low=-d.high, high=-d.low)
