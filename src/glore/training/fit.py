"""One training loop for every model here: rows in, trained weights out, on transformers.Trainer and accelerate.

What is ours: batches are planned beforehand (`batches`), the loss is the mean over all scored positions of an optimiser
step (however they fall into micro-batches and devices), a language model's logits are computed at scored positions
only, Muon, and resuming only from a complete checkpoint of the very same job. A resumed run takes the steps that an
uninterrupted one would have taken, with the same weights bit for bit on a CPU.
Axes: B rows, T tokens, V vocabulary or classes, N scored positions of a batch.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from glore.config import TrainSettings
from glore.errors import ConfigError, ModelError, shown
from glore.models import pick_device
from glore.progress import Progress
from glore.training.allocator import keep_freed_memory, release_freed_memory
from glore.training.batches import pad_rows, plan_batches
from glore.training.distributed import gather_weights, is_sharded
from glore.training.examples import IGNORED, Row, TrainReport
from glore.training.lanes import N_LANES, Lanes
from glore.training.optimizers import MuonWithAdamW, split_parameters
from glore.training.resume import job_fingerprint, resume_point

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fit", "seed_all"]

TorchBatch = dict[str, torch.Tensor]
CHECKPOINTS = "checkpoints"


def seed_all(seed: int) -> None:
    """Seed python, numpy and torch (numpy takes 32 bits)."""
    set_seed(seed % 2**32)


def fit(
    model: PreTrainedModel,
    rows: Sequence[Row],
    settings: TrainSettings,
    *,
    name: str,
    pad_id: int,
    n_dropped: int,
    seed: int,
    progress: Progress,
    work_dir: Path,
    device: str = "auto",
    log_dir: Path | None = None,
    in_order: bool = False,
) -> TrainReport:
    """Train `model` in place on `rows`. Checkpoints live in `work_dir/checkpoints`, trackers write to `log_dir/name` (`work_dir/log/name`).
    `in_order` keeps the order of the rows (`plan_batches`).

    Raises ModelError when there is nothing to train on or the loss stops being a number, ConfigError for an unknown tracker.
    """
    what = f"train {name}"
    if not rows:
        raise ModelError(
            f"nothing to train on for {what}: 0 rows left, {n_dropped} dropped as longer than max_length={settings.max_length} tokens "
            "or without a target; raise max_length or look at the stage before"
        )
    started = time.monotonic()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    group = settings.gradient_accumulation * world
    lengths = [len(row.ids) for row in rows]
    plan = plan_batches(lengths, settings.batch_size, settings.epochs, settings.max_steps * group, seed, in_order)
    batches = PlannedBatches(rows, plan, group, world, pad_id)
    n_steps = math.ceil(len(plan) / group)
    folder = work_dir / CHECKPOINTS
    progress.begin(what, n_steps, "steps")
    watch = Watch(what, progress, batches)
    on_cpu = pick_device(device) == "cpu"
    if on_cpu:
        keep_freed_memory()
        if settings.bf16:
            # torch's fused CPU attention is slow in bf16, backwards above all: written-out products took two thirds of its time here.
            model.set_attn_implementation("eager")
    was_cached = model.config.use_cache if hasattr(model.config, "use_cache") else None
    model.config.use_cache = False
    with _log_folder((log_dir or work_dir / "log") / name), _trainer_warnings(), _without_denormals():
        try:
            arguments = _arguments(settings, folder, n_steps, seed, on_cpu)
            trainer = PlannedTrainer(settings, model=model, args=arguments, train_dataset=batches, data_collator=_only, callbacks=[watch])
        except (ValueError, ImportError, RuntimeError) as error:
            raise ConfigError(f"these training settings don't work here: {shown(' '.join(str(error).split()), 300)}") from error
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        try:
            with arguments.main_process_first(local=False):
                checkpoint = resume_point(folder, job_fingerprint(settings, rows, plan, world, seed, model))
            sharded = is_sharded(trainer, settings)
            trainer.train(resume_from_checkpoint=checkpoint)
            gather_weights(trainer, sharded, work_dir)
        finally:
            trainer.close()
    model.config.use_cache = True if was_cached is None else was_cached
    if not sharded and not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ModelError(
            f"{what}: the weights are not finite after training; lower learning_rate ({settings.learning_rate:g}) or max_grad_norm"
        )
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    n_tokens = sum(lengths[i] for batch in plan for i in batch)
    return TrainReport(len(rows), n_dropped, n_tokens, n_steps, sum(last) / len(last), time.monotonic() - started)


class PlannedBatches(Dataset[TorchBatch]):
    """The planned batches as a dataset whose items are whole batches, padded."""

    def __init__(self, rows: Sequence[Row], plan: Sequence[tuple[int, ...]], group: int, world: int, pad_id: int) -> None:
        self.rows, self.plan, self.group, self.world, self.pad_id = rows, plan, group, world, pad_id

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> TorchBatch:
        ids_BT, targets_BT = pad_rows([self.rows[i] for i in self.plan[index]], self.pad_id)
        return {
            "input_ids": torch.from_numpy(ids_BT),
            "targets": torch.from_numpy(targets_BT),
            # Gradients are averaged over devices, so each device's share is scaled up by their number.
            "scale": torch.tensor(self.world / self.n_scored(index // self.group)),
        }

    def n_scored(self, step: int) -> int:
        """Scored positions of all batches of an optimiser step."""
        return sum(int((self.rows[i].targets != IGNORED).sum()) for batch in self._of(step) for i in batch)

    def n_tokens(self, step: int) -> int:
        """Tokens of an optimiser step, padding not counted."""
        return sum(len(self.rows[i].ids) for batch in self._of(step) for i in batch)

    def _of(self, step: int) -> Sequence[tuple[int, ...]]:
        return self.plan[step * self.group : (step + 1) * self.group]


class PlannedTrainer(Trainer):
    """Trainer with our loss, and Muon where it is asked for."""

    loss_is_scaled_for_ga = True

    def __init__(self, settings: TrainSettings, **arguments: Any) -> None:
        self.settings = settings
        super().__init__(**arguments)
        self.scored_only = ScoredOnly(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # Dropout draws from one generator, whose order two threads would race for; checkpointing recomputes on other threads.
        plain = all(m.p == 0 for m in self.model.modules() if isinstance(m, torch.nn.Dropout)) and not settings.gradient_checkpointing
        self.lanes = Lanes(trained) if self.args.use_cpu and plain and self.args.world_size == 1 else None

    def training_step(
        self, model: torch.nn.Module, inputs: TorchBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward, on a CPU with a lane for each half of the rows."""
        if self.lanes is None or len(inputs["input_ids"]) < N_LANES:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        parts = [inputs | {key: inputs[key][lane::N_LANES] for key in ("input_ids", "targets")} for lane in range(N_LANES)]
        return self.lanes.backward([partial(self.compute_loss, model, part) for part in parts])

    def compute_loss(
        self, model: torch.nn.Module, inputs: TorchBatch, return_outputs: bool = False, num_items_in_batch: torch.Tensor | int | None = None
    ) -> Any:
        """Summed cross entropy of the scored positions, over the number of them in the optimiser step."""
        targets_BT = inputs["targets"]
        scored_BT = targets_BT != IGNORED
        with self.scored_only(scored_BT):
            outputs = model(input_ids=inputs["input_ids"])
        logits = outputs.logits
        logits_NV = logits[scored_BT] if logits.shape[:2] == targets_BT.shape else logits.flatten(0, -2)
        loss = cross_entropy(logits_NV.float(), targets_BT[scored_BT], reduction="sum") * inputs["scale"]
        return (loss, outputs) if return_outputs else loss

    def close(self) -> None:
        """Leave the model as it was, and no thread behind."""
        self.scored_only.close()
        if self.lanes is not None:
            self.lanes.close()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW as transformers sets it up, or Muon for the hidden weights."""
        if self.settings.optimizer == "adamw":
            return super().create_optimizer(model)
        hidden, other = split_parameters(self.model)
        optimizer = MuonWithAdamW(hidden, other, self.settings.learning_rate, self.settings.weight_decay)
        self.optimizer = optimizer
        return optimizer


class ScoredOnly:
    """Let a language model's head see the scored positions only: (B, T, D) becomes (1, N, D) before the product with V columns.

    The head is the costly part at large vocabularies, and what follows it (softcaps, scales) works element by element.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._here = threading.local()  # each lane has a mask of its own
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]  # a method of PreTrainedModel
        self._handle = head.register_forward_pre_hook(self._cut) if head is not None else None

    def close(self) -> None:
        """Take the hook away again."""
        if self._handle is not None:
            self._handle.remove()

    @contextlib.contextmanager
    def __call__(self, scored_BT: torch.Tensor) -> Iterator[None]:
        """Cut down to these positions while this is open."""
        self._here.scored_BT = scored_BT
        try:
            yield
        finally:
            self._here.scored_BT = None

    def _cut(self, _: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        scored_BT = getattr(self._here, "scored_BT", None)
        return None if scored_BT is None else (hidden[0][scored_BT].unsqueeze(0), *hidden[1:])


STEPS_BETWEEN_RELEASES = 10
"""On a CPU, freed memory is given back after so many steps."""


class Watch(TrainerCallback):
    """Reports progress and stops a training whose loss is no number any more."""

    def __init__(self, what: str, progress: Progress, batches: PlannedBatches) -> None:
        self.what, self.progress, self.batches = what, progress, batches

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Steps done before a resume count as done."""
        if state.global_step:
            self.progress.note(f"{self.what}: resumed at step {state.global_step} of {state.max_steps}")
            self.progress.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """One more step."""
        self.progress.advance(1, tokens=self.batches.n_tokens(state.global_step - 1))
        if args.use_cpu and (state.global_step % STEPS_BETWEEN_RELEASES == 0 or state.global_step == state.max_steps):
            release_freed_memory()

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Logged every step, before anything is saved."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ModelError(
                f"{self.what}: the loss is {loss} at step {state.global_step} of {state.max_steps}; "
                f"lower learning_rate ({args.learning_rate:g}), or use float32 instead of bf16"
            )


def _arguments(settings: TrainSettings, folder: Path, n_steps: int, seed: int, on_cpu: bool) -> TrainingArguments:
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
        activation_checkpointing=settings.gradient_checkpointing,
        use_cpu=on_cpu,
        seed=seed % 2**32,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        log_level="error",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(settings.report_to) or "none",
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or 500,
        save_total_limit=2,
        eval_strategy="no",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs take part through torchrun or accelerate, never through torch's DataParallel
    return arguments


def _only(items: list[TorchBatch]) -> TorchBatch:
    (batch,) = items
    return batch


@contextlib.contextmanager
def _log_folder(folder: Path) -> Iterator[None]:
    """Where tensorboard writes; the Trainer takes it from the environment only."""
    name = "TENSORBOARD_LOGGING_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _without_denormals() -> Iterator[None]:
    """Numbers below float32's normal range count as zero: on a CPU they cost a hundred times as much, and gradients hold many late on."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def _trainer_warnings() -> Iterator[None]:
    """Keep the Trainer's remarks about its own defaults away from users."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
