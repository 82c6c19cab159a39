"""Do the effects hold over seeds? Pools the test questions of several runs and prints every table
as Markdown.

    python benchmarks/pool_seeds.py runs/quickstart-0 runs/quickstart-1 runs/quickstart-2

Units are question × seed; differences are paired within a question and seed, and a question that
several seeds asked is drawn as one by the bootstrap. The first table shows each seed by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from glore.config import load_config
from glore.errors import GloreError
from glore.evaluation import Evaluation, evaluate, pool
from glore.report.summary import headline
from glore.report.tables import table_views
from glore.report.views import TableView, percent, points, to_markdown
from glore.stages.testing import evaluation_options, read_inputs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders, one per seed")
    run_dirs: list[Path] = parser.parse_args().runs
    try:
        print(report(run_dirs))
    except GloreError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def report(run_dirs: list[Path]) -> str:
    """The whole Markdown text."""
    configs = [load_config(d / "config.yaml") for d in run_dirs]
    options = [evaluation_options(c) for c in configs]
    if len({dataclasses.replace(o, seed=0) for o in options}) > 1:
        raise GloreError(
            "the runs were evaluated with different settings (section evaluation of their "
            "config.yaml); pool runs of one recipe"
        )
    bundles = [read_inputs(d) for d in run_dirs]
    singles = [evaluate(b, o, c.labels) for b, o, c in zip(bundles, options, configs, strict=True)]
    pooled = evaluate(pool(bundles), options[0], configs[0].labels)
    sentences = "".join(f"- {s}\n" for s in headline(pooled))
    tables = [seeds_view(singles, pooled), *table_views(pooled)]
    return f"{sentences}\n" + "\n".join(to_markdown(view) for view in tables)


def seeds_view(singles: list[Evaluation], pooled: Evaluation) -> TableView:
    """The headline numbers of each seed, and of all of them."""
    rows = tuple(
        (e.name if e is not pooled else "all", *_headline_cells(e)) for e in (*singles, pooled)
    )
    columns = (
        "run",
        "n",
        "greedy, %",
        "EI − SFT",
        "pass@8, %",
        "SORM − ORM, steps, balanced",
        "ORM − SORM, final",
        "labels = truth, %",
    )
    columns += ("union fixes, %", "reranked, %", "− greedy", "− best of K")
    return TableView(
        "seeds",
        "Seed by seed",
        "Differences in points, paired; 95 % intervals.",
        columns,
        rows,
        frozenset({len(singles)}),
    )


def _headline_cells(e: Evaluation) -> tuple[str, ...]:
    ei = next((r for r in e.table5 if r.student == "EI"), None)
    steps = next(
        (
            d.balanced
            for d in e.table1_differences
            if (d.first, d.second, d.scope) == ("sorm", "orm", "intermediate")
        ),
        None,
    )
    final = next(
        (d.natural for d in e.table2_differences if (d.first, d.second) == ("sorm", "orm")), None
    )
    flipped = (
        dataclasses.replace(final, value=-final.value, low=-final.high, high=-final.low)
        if final and final.value is not None
        else None
    )
    labels = next((r.agreement for r in e.agreement if r.rule == "as used"), None)
    union = next((r.fixed for r in e.table3 if r.refiners == ("global", "local_sorm")), None)
    gains = {d.second: d.difference for d in e.figure4_differences if d.first == "reranked"}
    reranked = next((r.accuracy for r in e.figure4 if r.way == "reranked"), None)
    return (
        str(e.counts.n_drafts),
        percent(ei.greedy if ei else None),
        points(e.ei_gain),
        percent(ei.pass_8 if ei else None),
        points(steps),
        points(flipped),
        percent(labels),
        percent(union),
        percent(reranked),
        points(gains.get("greedy")),
        points(gains.get("best_of")),
    )


if __name__ == "__main__":
    main()
