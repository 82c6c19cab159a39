"""transformers.Trainer with our loss, over batches that were planned beforehand.

The loss is the mean over all scored positions of an optimiser step (over all pairs, for a
contrastive reward model), whatever micro-batches and devices they are in, each counted as often as
its example occurs. A language model's logits are computed at scored positions only. On a CPU each
half of a batch has its own thread.
Axes: B rows, T tokens, D hidden size, V vocabulary or classes, N scored positions of a batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy, softplus
from torch.utils.data import Dataset
from transformers import Trainer

from glore.config import TrainSettings
from glore.training import compiled
from glore.training.batches import pad_rows
from glore.training.examples import IGNORED, Row
from glore.training.optimizers import MuonWithAdamW, split_parameters
from glore.training.packed_attention import row_bounds
from glore.training.packing import pack_rows
from glore.training.pairs import PAIR
from glore.training.thread_parallel import N_THREADS, ThreadParallel

__all__ = ["Packing", "PlannedBatches", "PlannedTrainer"]

TorchBatch = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Packing:
    """How batches are packed."""

    longest: int
    """Tokens of the longest row of the training."""
    width: int
    """Tokens of every batch, padding included; 0: as few as there are."""


class PlannedBatches(Dataset[TorchBatch]):
    """The planned batches as a dataset whose items are whole batches, padded or packed."""

    def __init__(
        self,
        rows: Sequence[Row],
        plan: Sequence[tuple[int, ...]],
        group: int,
        world: int,
        pad_id: int,
        packing: Packing | None = None,
        per_term: int = 1,
    ) -> None:
        """`per_term`: scored positions that one term of the loss reads; 2 for pairs."""
        self.rows, self.plan, self.group, self.world, self.pad_id, self.packing = (
            rows,
            plan,
            group,
            world,
            pad_id,
            packing,
        )
        self.per_term = per_term
        self._scored = [int((row.targets != IGNORED).sum()) * row.copies for row in rows]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> TorchBatch:
        rows = [self.rows[i] for i in self.plan[index]]
        # Gradients are averaged over devices, so each device's share is scaled up by their number.
        scale = torch.tensor(self.world * self.per_term / self.n_scored(index // self.group))
        copies = torch.tensor([row.copies for row in rows], dtype=torch.float32)
        if self.packing is None:
            ids_BT, targets_BT = map(torch.from_numpy, pad_rows(rows, self.pad_id))
            return {
                "input_ids": ids_BT,
                "targets": targets_BT,
                "weights": copies[:, None],
                "scale": scale,
                "scored": scored_in(targets_BT),
            }
        ids_1T, targets_1T, positions_1T, bounds = map(
            torch.from_numpy, pack_rows(rows, self.pad_id, *dataclasses.astuple(self.packing))
        )
        weights_T = torch.ones(ids_1T.shape[1])
        weights_T[: sum(len(row.ids) for row in rows)] = copies.repeat_interleave(
            torch.tensor([len(row.ids) for row in rows])
        )
        batch = {
            "input_ids": ids_1T,
            "targets": targets_1T,
            "weights": weights_T[None],
            "scale": scale,
            "scored": scored_in(targets_1T),
        }
        return batch | {"position_ids": positions_1T, "bounds": bounds}

    def n_scored(self, step: int) -> int:
        """Scored positions of all batches of an optimiser step; equal examples count separately."""
        return sum(self._scored[i] for batch in self._of(step) for i in batch)

    def n_tokens(self, step: int) -> int:
        """Tokens of an optimiser step, padding not counted."""
        return sum(len(self.rows[i].ids) for batch in self._of(step) for i in batch)

    def _of(self, step: int) -> Sequence[tuple[int, ...]]:
        return self.plan[step * self.group : (step + 1) * self.group]


def scored_in(targets_BT: torch.Tensor) -> torch.Tensor:
    """The scored positions of a batch, (N,), counted through B × T.

    They are found on the CPU: the host would wait for a GPU to count them.
    """
    return (targets_BT.flatten() != IGNORED).nonzero().flatten()


def _unused(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("PlannedTrainer.compute_loss computes the loss")


class PlannedTrainer(Trainer):
    """Trainer with our loss and, if set, Muon."""

    def __init__(
        self,
        settings: TrainSettings,
        packing: Packing | None = None,
        is_paired: bool = False,
        label_tokens: tuple[int, ...] = (),
        **arguments: Any,
    ) -> None:
        """`is_paired`: rows are pairs of a right and a wrong solution (`glore.training.pairs`).
        `label_tokens`: targets are classes, and a language model says these tokens for them.
        """
        self.settings, self.packing = settings, packing
        # With a loss function of one's own, transformers does not divide the loss once more by the
        # batches of a step. It is not called, since `compute_loss` is ours. From transformers 5.19
        # on, `loss_is_scaled_for_ga` would do, too.
        super().__init__(data_collator=_only, compute_loss_func=_unused, **arguments)
        self._flops_per_token = 6 * sum(p.numel() for p in self.model.parameters())
        self._together = PAIR if is_paired else 1
        summed: Callable[..., torch.Tensor] = summed_pair_losses if is_paired else summed_losses
        if label_tokens:
            summed = partial(summed_label_losses, label_tokens=label_tokens)
        self.summed = (
            torch.compile(summed, backend=compiled.BACKEND, dynamic=True)
            if settings.compile
            else summed
        )
        self.scored_only = _ScoredOnly(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # Two threads would race for the generator of dropout; checkpointing recomputes on other
        # threads.
        fits = all(m.p == 0 for m in self.model.modules() if isinstance(m, torch.nn.Dropout))
        fits = fits and not settings.gradient_checkpointing and not settings.compile
        self.threads = (
            ThreadParallel(trained)
            if self.args.use_cpu and fits and self.args.world_size == 1
            else None
        )

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: TorchBatch,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward and backward; on a CPU with a thread for each half of the rows. Pairs stay
        whole.
        """
        if self.threads is None or len(inputs["input_ids"]) < N_THREADS * self._together:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        groups = {
            key: inputs[key].unflatten(0, (-1, self._together))
            for key in ("input_ids", "targets", "weights")
        }
        parts = [
            inputs | {key: group[half::N_THREADS].flatten(0, 1) for key, group in groups.items()}
            for half in range(N_THREADS)
        ]
        parts = [part | {"scored": scored_in(part["targets"])} for part in parts]
        return self.threads.backward([partial(self.compute_loss, model, part) for part in parts])

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: TorchBatch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Summed losses of the scored positions, or of pairs of them, divided by their number in
        the optimiser step.
        """
        targets_BT, scored_N = inputs["targets"], inputs["scored"]
        packed: dict[str, Any] = {}
        if self.packing is not None:
            packed = {
                "position_ids": inputs["position_ids"],
                **row_bounds(inputs["bounds"], self.packing.longest),
            }
        with self.scored_only(scored_N):
            outputs = model(input_ids=inputs["input_ids"], **packed)
        logits = outputs.logits
        logits_NV = logits.flatten(0, -2)
        if logits.shape[:2] == targets_BT.shape:
            logits_NV = logits_NV.index_select(0, scored_N)
        weights_N = inputs["weights"].expand_as(targets_BT).flatten().index_select(0, scored_N)
        loss = (
            self.summed(logits_NV, targets_BT.flatten().index_select(0, scored_N), weights_N)
            * inputs["scale"]
        )
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: TorchBatch) -> int:
        """Six operations for each weight and token.

        transformers' own count visits all modules at every step, which delays the next one.
        """
        return self._flops_per_token * inputs["input_ids"].numel()

    def close(self) -> None:
        """Restore the model and end the threads."""
        self.scored_only.close()
        if self.threads is not None:
            self.threads.close()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW as transformers sets it up, or Muon for the hidden weights."""
        if self.settings.optimizer == "adamw":
            return super().create_optimizer(model)
        hidden, other = split_parameters(self.model)
        optimizer = MuonWithAdamW(
            hidden, other, self.settings.learning_rate, self.settings.weight_decay
        )
        self.optimizer = optimizer
        return optimizer


def summed_losses(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, weights_N: torch.Tensor
) -> torch.Tensor:
    """Weighted sum of the cross entropies, in float32. Targets are classes, or probabilities p of
    the second of two classes, whose cross entropy is with (1 − p, p).
    """
    if targets_N.is_floating_point():
        targets_N = torch.stack([1 - targets_N, targets_N], dim=-1)
    return (cross_entropy(logits_NV.float(), targets_N, reduction="none") * weights_N).sum()


def summed_label_losses(
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    label_tokens: tuple[int, ...],
) -> torch.Tensor:
    """Weighted sum of −log p(label token) among all tokens, in float32. Targets are classes, or
    probabilities p of the second of two classes: −(1 − p) log p(bad token) − p log p(good token).
    """
    log_p_NV = torch.log_softmax(logits_NV.float(), dim=-1)
    log_p_NC = log_p_NV[:, list(label_tokens)]
    if targets_N.is_floating_point():
        losses_N = -(1 - targets_N) * log_p_NC[:, 0] - targets_N * log_p_NC[:, 1]
    else:
        losses_N = -log_p_NC.gather(1, targets_N[:, None])[:, 0]
    return (losses_N * weights_N).sum()


def summed_pair_losses(
    logits_NC: torch.Tensor, targets_N: torch.Tensor, weights_N: torch.Tensor
) -> torch.Tensor:
    """Weighted sum of −log σ(r_right − r_wrong), in float32. N positions are N / 2 pairs; r is the
    difference of the two logits, so p(good) = σ(r).
    """
    rewards_N = logits_NC[:, 1].float() - logits_NC[:, 0].float()
    signed_N = torch.where(targets_N == 1, rewards_N, -rewards_N)
    return (softplus(-signed_N.view(-1, PAIR).sum(1)) * weights_N[::PAIR]).sum()


class _ScoredOnly:
    """Passes only the scored positions to a language model's head: (B, T, D) becomes (1, N, D)
    before the product with V columns.

    The head is expensive with a large vocabulary, and what follows it (softcaps, scales) is
    elementwise.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._here = threading.local()  # each thread has its own positions
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]  # a method of PreTrainedModel
        self._handle = head.register_forward_pre_hook(self._cut) if head is not None else None

    def close(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()

    @contextlib.contextmanager
    def __call__(self, scored_N: torch.Tensor) -> Iterator[None]:
        """Select these positions, counted through B × T, inside the context."""
        self._here.scored_N = scored_N
        try:
            yield
        finally:
            self._here.scored_N = None

    def _cut(
        self, _: torch.nn.Module, hidden: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        scored_N = getattr(self._here, "scored_N", None)
        return (
            None
            if scored_N is None
            else (hidden[0].flatten(0, 1).index_select(0, scored_N).unsqueeze(0), *hidden[1:])
        )


def _only(items: list[TorchBatch]) -> TorchBatch:
    (batch,) = items
    return batch
