"""Tables and texts that the commands show: a run's stages, a regrading, one refinement. Text of
models is shown as plain text.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from glore.cli.rich_tables import cell, count, new_table
from glore.errors import printable, shown
from glore.pipeline import StagePlan
from glore.pipeline.marks import read_done
from glore.progress import duration
from glore.prompts import BAD_MARK
from glore.records import Refinement

if TYPE_CHECKING:
    from glore.regrade import RegradedStage, Regrading

__all__ = [
    "refinement_json",
    "refinement_text",
    "regrading_notes",
    "regrading_tables",
    "stage_backends",
    "stage_engines",
    "stage_warnings",
    "stages_table",
]


def stages_table(plans: Sequence[StagePlan], run_dir: Path) -> Table:
    """The state of a run as a table, one row per stage."""
    table = new_table(str(run_dir), ("stage", "state", "counts"), ("tokens", "time"))
    tokens, seconds = 0, 0.0
    for plan in plans:
        done = read_done(run_dir / "stages" / plan.name)
        state = plan.why.replace("complete", "done", 1)
        if plan.state != "reused" and done:
            state = f"stale: {plan.why}"
        if done is None:
            table.add_row(*map(cell, (plan.name, state, "", "", "")))
            continue
        tokens, seconds = tokens + done.tokens, seconds + done.seconds
        counts = ", ".join(f"{name} {value:,.10g}" for name, value in sorted(done.counts.items()))
        table.add_row(
            *map(cell, (plan.name, state, counts, count(done.tokens), duration(done.seconds)))
        )
    table.add_section()
    table.add_row(*map(cell, ("total", "", "", count(tokens), duration(seconds))))
    return table


def stage_backends(plans: Sequence[StagePlan], run_dir: Path) -> list[str]:
    """What read the models of a run, a line for each backend, with its models and their stages."""
    found: dict[str, dict[str, list[str]]] = {}
    for plan in plans:
        done = read_done(run_dir / "stages" / plan.name)
        for model, backend in done.backends.items() if done else ():
            found.setdefault(backend, {}).setdefault(model, []).append(plan.name)
    return [
        f"{backend}: {', '.join(f'{m} ({_some(stages)})' for m, stages in models.items())}"
        for backend, models in sorted(found.items())
    ]


def stage_engines(plans: Sequence[StagePlan], run_dir: Path) -> list[str]:
    """The kinds of engines that drew in a run, with why `engine.kind=auto` chose them; a line each,
    with the stages.
    """
    found: dict[str, list[str]] = {}
    for plan in plans:
        done = read_done(run_dir / "stages" / plan.name)
        kind = done and (done.engine or done.settings.get("engine.kind"))
        if kind:
            found.setdefault(str(kind), []).append(plan.name)
    return [f"{kind}: {_some(stages)}" for kind, stages in sorted(found.items())]


def _some(stages: Sequence[str]) -> str:
    return stages[0] if len(stages) == 1 else f"{stages[0]} and {len(stages) - 1} more"


def stage_warnings(plans: Sequence[StagePlan], run_dir: Path) -> list[str]:
    """What the stages of a run warned of, a line each."""
    marks = [(plan.name, read_done(run_dir / "stages" / plan.name)) for plan in plans]
    return [f"warning: {name}: {text}" for name, mark in marks if mark for text in mark.warnings]


def regrading_tables(found: Regrading, run_dir: Path) -> list[Table]:
    """A regrading as tables: counts by stage and change of verdict, then examples."""
    title = "what was changed" if found.is_applied else "what the current graders would change"
    counts = new_table(
        f"{run_dir}: {title}",
        ("stage", "stored → now", "the stage"),
        ("changed", "verdicts"),
    )
    for stage in found.stages:
        rows = [(f"{stored} → {now}", n) for (stored, now), n in stage.transitions.items()]
        rows += [("only the answer's spelling", stage.n_answers)] if stage.n_answers else []
        becomes = _becomes(stage, found.is_applied)
        for change, n in rows or [("", 0)]:
            counts.add_row(
                *map(cell, (stage.stage, change, becomes, count(n), f"{stage.n_verdicts:,}"))
            )
            becomes = ""
    examples = new_table("examples", ("stage", "question", "gold", "answer", "stored", "now"), ())
    for stage in found.stages:
        for e in stage.examples:
            answer = "none" if e.answer is None else shown(e.answer)
            examples.add_row(
                *map(cell, (stage.stage, e.problem_id, shown(e.gold), answer, e.stored, e.now))
            )
    return [counts, examples] if examples.row_count else [counts]


def regrading_notes(found: Regrading, run_dir: Path) -> list[str]:
    """A regrading → its consequences and what to do next, one line each."""
    notes = []
    if found.skipped:
        notes.append(f"unfinished, so not graded: {', '.join(found.skipped)}")
    if not found.changed:
        return [*notes, "nothing changes"]
    if found.stale:
        notes.append(
            f"{'now stale' if found.is_applied else 'would become stale'}: {', '.join(found.stale)}"
        )
    again = (
        f"glore run {shlex.quote(str(run_dir / 'config.yaml'))}{' --redo' if found.stale else ''}"
    )
    if not found.is_applied:
        notes.append("nothing was written; add --apply to write it")
    elif found.stale or any(s.n_unfinished for s in found.stages):
        notes.append(f"continue with {again}")
    return notes


def refinement_json(refinement: Refinement) -> str:
    """A refinement → one line of JSON with every field, in ASCII: no terminal escape passes."""
    return json.dumps(dataclasses.asdict(refinement), allow_nan=False)


def refinement_text(refinement: Refinement) -> Text:
    """A refinement → text: draft with step scores and mark, candidates with scores, choice."""
    r = refinement
    out = Text()
    out.append(f"Question  {printable(r.question)}\n", style="bold")
    verdict = "needs work" if r.needs_work else "looks right"
    is_cascade = bool(r.draft) and not r.sorm_scores
    models = "ORM" if is_cascade else "ORM and SORM"
    out.append(
        f"Draft     {verdict}; a step's probability of being good, by {models}\n", style="bold"
    )
    sorm = [f"{'':4}" if is_cascade else f"{p:.2f}" for p in r.sorm_scores or r.orm_scores]
    for i, (step, p, q) in enumerate(zip(r.draft, r.orm_scores, sorm, strict=True)):
        marked = i == r.marked_step
        out.append(
            f"{BAD_MARK if marked else '':>6} {p:.2f} {q}  {printable(step)}\n",
            style="red" if marked else "",
        )
    for i, (kind, steps, score) in enumerate(
        zip(r.candidate_kinds, r.candidates, r.candidate_scores, strict=True)
    ):
        chosen = i == r.chosen
        out.append(
            f"{kind.capitalize():<9} score {score:.2f}{', chosen' if chosen else ''}\n",
            style="bold green" if chosen else "bold",
        )
        if kind != "draft":
            out.append("".join(f"{'':>18}{printable(step)}\n" for step in steps))
    out.append(f"Answer    {'none' if r.answer is None else printable(r.answer)}\n", style="bold")
    return out


def _becomes(stage: RegradedStage, is_applied: bool) -> str:
    if stage.outcome == "rewritten":
        dropped = f", {stage.n_dropped:,} rollouts dropped" if stage.n_dropped else ""
        return f"{'rewritten' if is_applied else 'would be rewritten'}{dropped}"
    if stage.outcome == "unfinished":
        becomes = "now unfinished" if is_applied else "would become unfinished"
        return f"{becomes}: {stage.n_unfinished:,} drafts need more rollouts"
    return "already stale: its drafts are gone" if stage.outcome == "other drafts" else ""
