"""What the command line shows about a run's stages and about one refinement. Model text is shown as plain text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from glore.errors import printable
from glore.marks import read_done
from glore.pipeline import StagePlan
from glore.progress import duration
from glore.prompts import BAD_MARK
from glore.records import Refinement

__all__ = ["plan_table", "refinement_json", "refinement_text", "stages_table"]


def plan_table(plans: Sequence[StagePlan], run_dir: str) -> Table:
    """What `glore run` would do, stage by stage."""
    table = _table(f"{run_dir}: what would be done", ("stage", "what", "why"), ("tokens, about",))
    for plan in plans:
        table.add_row(*map(_cell, (plan.name, plan.state, plan.why, _count(plan.tokens))))
    total = sum(plan.tokens or 0 for plan in plans)
    table.add_section()
    to_do = sum(plan.state != "reused" for plan in plans)
    table.add_row(*map(_cell, ("total", f"{to_do} of {len(plans)} to do", "", _count(total))))
    return table


def stages_table(plans: Sequence[StagePlan], run_dir: Path) -> Table:
    """What a run holds, stage by stage."""
    table = _table(str(run_dir), ("stage", "state", "counts"), ("tokens", "time"))
    tokens, seconds = 0, 0.0
    for plan in plans:
        done = read_done(run_dir / "stages" / plan.name)
        state = "done" if plan.state == "reused" else f"stale: {plan.why}" if done else plan.why
        if done is None:
            table.add_row(*map(_cell, (plan.name, state, "", "", "")))
            continue
        tokens, seconds = tokens + done.tokens, seconds + done.seconds
        counts = ", ".join(f"{name} {value:,.10g}" for name, value in sorted(done.counts.items()))
        table.add_row(*map(_cell, (plan.name, state, counts, _count(done.tokens), duration(done.seconds))))
    table.add_section()
    table.add_row(*map(_cell, ("total", "", "", _count(tokens), duration(seconds))))
    return table


def refinement_json(refinement: Refinement) -> str:
    """One line of JSON with every field of the record (ASCII, so that no terminal escape gets through)."""
    return json.dumps(dataclasses.asdict(refinement), allow_nan=False)


def refinement_text(refinement: Refinement) -> Text:
    """One refinement for reading: draft with step scores and mark, candidates with scores, the choice."""
    r = refinement
    out = Text()
    out.append(f"Question  {printable(r.question)}\n", style="bold")
    verdict = "needs work" if r.needs_work else "looks right"
    out.append(f"Draft     {verdict}; a step's probability of being good, by ORM and SORM\n", style="bold")
    for i, (step, orm, sorm) in enumerate(zip(r.draft, r.orm_scores, r.sorm_scores, strict=True)):
        marked = i == r.marked_step
        out.append(f"{BAD_MARK if marked else '':>6} {orm:.2f} {sorm:.2f}  {printable(step)}\n", style="red" if marked else "")
    for i, (kind, steps, score) in enumerate(zip(r.candidate_kinds, r.candidates, r.candidate_scores, strict=True)):
        chosen = i == r.chosen
        out.append(f"{kind.capitalize():<9} score {score:.2f}{', chosen' if chosen else ''}\n", style="bold green" if chosen else "bold")
        if kind != "draft":
            out.append("".join(f"{'':>18}{printable(step)}\n" for step in steps))
    out.append(f"Answer    {'none' if r.answer is None else printable(r.answer)}\n", style="bold")
    return out


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=_cell(title), title_justify="left")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(text: str) -> Text:
    return Text(printable(text))


def _count(n: int | None) -> str:
    return f"{n:,}" if n else ""
