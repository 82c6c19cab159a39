"""What `glore run --dry-run` shows: the plan with tokens and predicted times, data and disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from rich.table import Table

from glore.cli.rich_tables import cell, count, new_table
from glore.config import RunConfig
from glore.engines.auto import LARGE
from glore.pipeline import Stage, StagePlan
from glore.pipeline.chosen import with_engine
from glore.progress import duration
from glore.stages.disk import BYTES, disk_use, model_bytes, n_models
from glore.stages.gpu_time import CARD, gpu_rates
from glore.stages.workload import workload

__all__ = ["data_note", "disk_note", "engine_note", "gpu_note", "plan_table"]


def plan_table(plans: Sequence[StagePlan], run_dir: str) -> Table:
    """What `glore run` would do, stage by stage. The time is predicted from the rates of finished
    stages, where there are some of the kind (sampling, training).
    """
    table = new_table(
        f"{run_dir}: what would be done",
        ("stage", "what", "why"),
        ("tokens, about", "time, about"),
    )
    rates = {trains: _rate(plans, trains) for trains in (True, False)}
    total_seconds, is_known = 0.0, True
    for plan in plans:
        rate, seconds = rates[plan.trains], None
        if plan.tokens and rate:
            seconds = plan.tokens / rate
            total_seconds += seconds
        is_known &= not plan.tokens or seconds is not None
        time = "" if seconds is None else duration(seconds)
        table.add_row(*map(cell, (plan.name, plan.state, plan.why, count(plan.tokens), time)))
    total = sum(plan.tokens or 0 for plan in plans)
    table.add_section()
    to_do = sum(plan.state != "reused" for plan in plans)
    time = duration(total_seconds) if is_known and total_seconds else ""
    done = f"{to_do} of {len(plans)} to do"
    table.add_row(*map(cell, ("total", done, "", count(total), time)))
    return table


def _rate(plans: Sequence[StagePlan], trains: bool) -> float | None:
    """Tokens per second of the finished stages of a kind, the middle one; None without any."""
    rates = sorted(
        plan.done.tokens / plan.done.seconds
        for plan in plans
        if plan.trains == trains and plan.done and plan.done.tokens and plan.done.seconds
    )
    return rates[len(rates) // 2] if rates else None


def disk_note(config: RunConfig, stages: Sequence[Stage]) -> str:
    """How much disk the run's models take, and how much is free."""
    n, size, use = n_models(stages), model_bytes(config), disk_use(config, stages)
    if size is None or use is None:
        kept = sum(len(stage.delivers) for stage in stages)
        few = f", of which {kept} stay (keep=final)" if config.keep == "final" else ""
        return f"disk: {n} models, each as large as the base model{few}"
    place = next(p for p in (config.run_dir, *config.run_dir.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    note = (
        f"disk: {n} models, the base model has {_bytes(size)}; at most {_bytes(use.most)} at the "
        f"same time, checkpoints counted, and {_bytes(use.at_the_end)} in the end"
    )
    if config.keep == "final":
        note += f", when {use.n_models} models are left (keep=final)"
    else:
        less = disk_use(config.model_copy(update={"keep": "final"}), stages) or use
        note += f" (with --keep final {_bytes(less.most)} and {_bytes(less.at_the_end)})"
    note += f"; {_bytes(free)} are free"
    return note if free > 1.1 * use.most else f"{note}, which is too little"


def data_note(config: RunConfig) -> str:
    """How many questions there are, and how long they are."""
    found = workload(config)
    questions = ", ".join(f"{n:,} {split}" for split, n in found.questions.items())
    how = "counted in the data" if found.is_counted else "assumed: the data is not on this machine"
    return (
        f"questions: {questions}, about {found.question_tokens:.0f} tokens each; solutions of "
        f"about {found.solution_tokens:.0f} tokens, {found.n_worked:,} worked ({how})"
    )


def gpu_note(config: RunConfig, plans: Sequence[StagePlan]) -> str:
    """What the stages to do would take on one GPU, by `glore.stages.gpu_time`; empty for a base
    that is not large or not known here, off a GPU, and where rates of this run are known.
    """
    size = model_bytes(config)
    known = [trains for trains in (True, False) if _rate(plans, trains)]
    if known or size is None or config.engine.device in ("cpu", "mps"):
        return ""
    rates = gpu_rates(config) if size / BYTES[config.base.dtype] >= LARGE else None
    if rates is None:
        return ""
    trained, drawn = (
        sum(plan.tokens or 0 for plan in plans if plan.trains == trains and plan.state != "reused")
        for trains in (True, False)
    )
    return (
        f"time on one {CARD}, estimated from the rates of smaller models (docs/cluster.md), not "
        f"measured: training at {rates.trained:,.0f} tokens/s, "
        f"{duration(trained / rates.trained)}; sampling at {rates.drawn_worse:,.0f} to "
        f"{rates.drawn_better:,.0f} tokens/s, {duration(drawn / rates.drawn_better)} to "
        f"{duration(drawn / rates.drawn_worse)}; all rounds of expert iteration counted"
    )


def engine_note(config: RunConfig) -> str:
    """Which engine draws, and why."""
    chosen, why = with_engine(config)
    return f"engine: {why or f'{chosen.engine.kind}, as engine.kind says'}"


def _bytes(n: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while n >= 1000 and len(units) > 1:
        n, units = n / 1000, units[1:]
    return f"{n:.3g} {units[0]}"
