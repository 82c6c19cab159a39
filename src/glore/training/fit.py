"""One training loop for all models: rows in, trained weights out, on transformers.Trainer and
accelerate.

Ours are: the plan of batches (`batches`, `packing`), the loss (`trainer`), Muon (`optimizers`), and
resuming only from a complete checkpoint of the same job (`resume`). A resumed training takes the
steps that an uninterrupted one would have taken; on a CPU the weights are bit for bit the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pickle
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)

from glore.config import TrainSettings
from glore.devices import computes_bfloat16, trains_on_cpu
from glore.errors import ConfigError, ModelError, out_of_memory, shown
from glore.models import quiet
from glore.own_process import variable_set
from glore.training.allocator import keep_freed_memory
from glore.training.batches import plan_batches
from glore.training.compiled import compiled_blocks
from glore.training.device_settings import fast_products, suitable_attention
from glore.training.distributed import gather_weights, is_sharded
from glore.training.examples import Row, TrainReport
from glore.training.packed_attention import check_rows_apart
from glore.training.packing import plan_packed
from glore.training.pairs import PAIR, pair_tokens, plan_pairs
from glore.training.resume import job_fingerprint, resume_point
from glore.training.trackers import both
from glore.training.trainer import Packing, PlannedBatches, PlannedTrainer
from glore.training.training_setup import TrainingSetup
from glore.training.watch import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fit", "seed_all"]

CHECKPOINTS = "checkpoints"
TENSORBOARD = "TENSORBOARD_LOGGING_DIR"
"""Where tensorboard writes to; the Trainer reads it from the environment only."""
STEPS_BETWEEN_READINGS = 10
"""On a GPU, steps between two readings of the loss, for which the host waits for the device."""


def seed_all(seed: int) -> None:
    """Seed python, numpy and torch (numpy takes 32 bits)."""
    set_seed(seed % 2**32)


def fit(
    model: PreTrainedModel,
    rows: Sequence[Row],
    settings: TrainSettings,
    setup: TrainingSetup,
    *,
    pad_id: int,
    n_dropped: int,
    in_order: bool = False,
    is_paired: bool = False,
    label_tokens: tuple[int, ...] = (),
) -> TrainReport:
    """Train `model` in place on `rows`. Only checkpoints are saved, in
    `setup.work_dir/checkpoints`.

    `n_dropped`: examples that did not become rows, for the report. `in_order`: keep the order of
    the rows (`plan_batches`). `is_paired`: rows are pairs (`glore.training.pairs`).
    `label_tokens`: the tokens that a language model says for the classes of step rows.

    Raises ModelError when there are no rows or the loss is not finite, ConfigError for an unknown
    tracker.
    """
    name, seed, work_dir = setup.out_dir.name, setup.seed, setup.work_dir
    what = f"train {name}"
    if not rows:
        raise ModelError(
            f"nothing to train on for {what}: 0 rows left, {n_dropped} dropped as longer than "
            f"max_length={settings.max_length} tokens or without a target; raise "
            f"{setup.setting('max_length')} or look at the stage before"
        )
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ConfigError(
            f"{what}: {setup.setting('gradient_checkpointing')} is true, and "
            f"{shown(model.config.model_type)} models don't know it; leave it out and lower "
            "batch_size"
        )
    on_cpu = trains_on_cpu(setup.device)
    if settings.bf16 and not computes_bfloat16("cpu" if on_cpu else "cuda"):
        setup.progress.note(
            f"{what}: this processor has no bfloat16 instructions, so bf16 is off and training is "
            "in float32"
        )
        settings = settings.model_copy(update={"bf16": False})
    started = time.monotonic()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    group = settings.gradient_accumulation * world
    lengths = [len(row.ids) for row in rows]
    plan = _plan(lengths, settings, settings.max_steps * group, seed, in_order, is_paired)
    # Compiled blocks want one shape.
    n_packed = settings.batch_tokens
    if is_paired and n_packed:
        n_packed = pair_tokens(lengths, n_packed)
    packing = Packing(max(lengths), n_packed if settings.compile else 0) if n_packed else None
    batches = PlannedBatches(rows, plan, group, world, pad_id, packing, PAIR if is_paired else 1)
    n_steps = math.ceil(len(plan) / group)
    folder = work_dir / CHECKPOINTS
    setup.progress.begin(what, n_steps, "steps")
    was_cached = model.config.use_cache if hasattr(model.config, "use_cache") else None
    model.config.use_cache = False
    with (
        variable_set(TENSORBOARD, str((setup.log_dir or work_dir / "log") / name)),
        _trainer_warnings(),
        _without_denormals(),
        fast_products(on_cpu),
        suitable_attention(model, on_cpu, settings.bf16, max(lengths), packing is not None),
        keep_freed_memory(on_cpu) as kept,
    ):
        try:
            trackers = both(settings.report_to, setup.trackers)
            arguments = _arguments(settings, folder, n_steps, seed, on_cpu, trackers)
            arguments.project, arguments.run_name = "glore", _run_name(setup)
            trainer = PlannedTrainer(
                settings,
                packing,
                is_paired,
                label_tokens,
                model=model,
                args=arguments,
                train_dataset=batches,
                callbacks=[Watch(what, setup, batches, folder, kept)],
            )
        except (ValueError, ImportError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                "these training settings don't work here: "
                f"{shown(' '.join(str(error).split()), 300)}"
            ) from error
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        try:
            with arguments.main_process_first(local=False):
                checkpoint = resume_point(
                    folder,
                    job_fingerprint(
                        settings, rows, plan, world, seed, model, is_paired, label_tokens
                    ),
                    what,
                    setup.progress,
                )
            sharded = is_sharded(trainer, settings)
            if packing is not None and not sharded:
                check_rows_apart(model, settings.bf16, setup.setting("batch_tokens"))
            try:
                with compiled_blocks(model) if settings.compile else contextlib.nullcontext():
                    trainer.train(resume_from_checkpoint=checkpoint)
            except pickle.UnpicklingError:  # torch's own message suggests to run what is in it
                raise ModelError(
                    f"{what}: the checkpoint {checkpoint} holds more than tensors and numbers, "
                    "which could run code when it is read; no training writes that, so see where "
                    f"{folder} is from, and delete it to train anew"
                ) from None
            gather_weights(trainer, sharded, work_dir)
        finally:
            trainer.close()
    model.config.use_cache = True if was_cached is None else was_cached
    if not sharded and not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ModelError(
            f"{what}: the weights are not finite after training; lower "
            f"{setup.setting('learning_rate')} ({settings.learning_rate:g}) or max_grad_norm"
        )
    n_tokens = sum(lengths[i] for batch in plan for i in batch)
    return TrainReport(
        len(rows),
        n_dropped,
        n_tokens,
        n_steps,
        _final_loss(trainer.state.log_history, n_steps),
        time.monotonic() - started,
    )


def _plan(
    lengths: Sequence[int],
    settings: TrainSettings,
    n_batches: int,
    seed: int,
    in_order: bool,
    is_paired: bool,
) -> list[tuple[int, ...]]:
    """Row indices of every batch, as `plan_batches` gives them."""
    if is_paired:
        return plan_pairs(lengths, settings, n_batches, seed, in_order)
    planned = (
        partial(plan_packed, lengths, settings.batch_tokens)
        if settings.batch_tokens
        else partial(plan_batches, lengths, settings.batch_size)
    )
    return planned(settings.epochs, n_batches, seed, in_order)


def _final_loss(log: Sequence[Mapping[str, float]], n_steps: int) -> float:
    """Mean loss of the last tenth of the steps, at least one.

    Every entry of the log is the mean of the steps since the entry before.
    """
    entries = [(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]
    starts = [0, *(step for step, _ in entries)]
    last = [
        (step - start, loss)
        for (step, loss), start in zip(entries, starts, strict=False)
        if step > n_steps - max(1, n_steps // 10)
    ]
    return sum(n * loss for n, loss in last) / sum(n for n, _ in last)


def _run_name(setup: TrainingSetup) -> str:
    """What trackers call the training: RUN/MODEL where it has a run, else MODEL."""
    run = "" if setup.log_dir is None else f"{setup.log_dir.parent.name}/"
    return f"{run}{setup.out_dir.name}"


def _arguments(
    settings: TrainSettings,
    folder: Path,
    n_steps: int,
    seed: int,
    on_cpu: bool,
    trackers: list[str],
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=n_steps,
        per_device_train_batch_size=1,  # an item of the dataset is a batch
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": settings.min_learning_rate_ratio},
        warmup_steps=round(settings.warmup_ratio * n_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        **_checkpointing(settings.gradient_checkpointing),
        use_cpu=on_cpu,
        seed=seed % 2**32,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        log_level="error",
        logging_strategy="steps",
        logging_steps=settings.log_steps or (1 if on_cpu else STEPS_BETWEEN_READINGS),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=trackers,
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or 500,
        save_total_limit=None,  # older ones go once the new one is complete (`resume.complete`)
        eval_strategy="no",
        # Pinned batches then travel while the device computes; the host waits for none of them.
        accelerator_config=None if on_cpu else {"non_blocking": True},
    )
    if arguments.n_gpu > 1:
        # several GPUs take part through torchrun or accelerate, never through torch's DataParallel
        arguments._n_gpu = 1
    return arguments


def _checkpointing(wanted: bool) -> dict[str, bool]:
    """The argument that recomputes activations, by its name in the installed transformers.

    5.17 to 5.19 have the older one only.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = (
        "activation_checkpointing"
        if "activation_checkpointing" in known
        else "gradient_checkpointing"
    )
    return {name: wanted}


@contextlib.contextmanager
def _without_denormals() -> Iterator[None]:
    """Treat numbers below float32's normal range as zero. On a CPU they cost a hundred times as
    much, and gradients have many of them late in training.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def _trainer_warnings() -> Iterator[None]:
    """Hide the Trainer's remarks about its own defaults."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
