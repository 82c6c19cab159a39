"""Muon, combined with AdamW. (AdamW alone is transformers' own.)

Muon (orthogonalised momentum) suits the 2-D hidden weights only. Embeddings, heads and vectors use
AdamW. `adjust_lr_fn="match_rms_adamw"` scales Muon's updates to AdamW's size, so both have the same
learning rate.

torch's Muon orthogonalises updates in bfloat16, one matrix after the other. Processors without
bfloat16 instructions spend four fifths of a small model's training on it, and a GPU waits for
thousands of small launches. Ours uses float32 (tf32 for a GPU's products) and all matrices of one
shape together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Float32Muon", "MuonWithAdamW", "split_parameters"]

POLYNOMIALS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""x → a x + b x^3 + c x^5, one after the other: the three that together map [0.01, 1] nearest to 1,
to 0.73 to 1.27 (arXiv 2505.16932, section 3, by Remez's algorithm). Smaller singular values grow
78-fold.
"""


class Float32Muon(Muon):
    """torch's Muon with `match_rms_adamw`, in float32 throughout (Jordan et al. 2024; scaling:
    arXiv 2502.16982, section 2.2).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares three overloads
        """One step for all parameters that have a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for (n_rows, n_columns), alike in by_shape.items():
                moved = [self._moved(p, group["momentum"], group["nesterov"]) for p in alike]
                updates = _orthogonal(moved, group["eps"])
                lr = float(group["lr"])
                scale = 0.2 * math.sqrt(max(n_rows, n_columns))
                for p, update in zip(alike, updates, strict=True):
                    p.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * scale)
        return loss

    def _moved(self, p: nn.Parameter, momentum: float, nesterov: bool) -> torch.Tensor:
        """The gradient with momentum."""
        grad = cast(torch.Tensor, p.grad)
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer: torch.Tensor = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum) if nesterov else buffer


def _orthogonal(matrices: Sequence[torch.Tensor], eps: float) -> torch.Tensor:
    """N matrices [R, C] with all singular values moved to about 1, as [N, R, C].

    This iterates polynomials (arXiv 2505.16932). torch's Muon takes five steps from singular values
    divided by the root of their sum of squares, most of them far below 1. Here they are divided by
    a bound that is six times tighter, (sum of s^8)^(1/8), at no cost, and three steps reach as far.
    The iteration runs on the small Gram matrices alone, since all its factors commute: half the
    operations.
    """
    x_NRC = torch.stack(list(matrices)).float()
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x_NRC.div_(
        x_NRC.flatten(1).norm(dim=1).clamp_(min=eps)[:, None, None]
    )  # or eighth powers would underflow
    gram_NMM = x_NRC.mT @ x_NRC if tall else x_NRC @ x_NRC.mT
    squared_NMM = gram_NMM @ gram_NMM
    bound_N11 = squared_NMM.flatten(1).norm(dim=1).sqrt().clamp_(min=eps)[:, None, None]
    x_NRC.div_(bound_N11.sqrt())
    gram_NMM.div_(bound_N11)
    squared_NMM.div_(bound_N11.square())
    turn_NMM: torch.Tensor | None = None
    for a, b, c in POLYNOMIALS:
        if turn_NMM is None:
            factor_NMM = squared_NMM.mul_(c).add_(gram_NMM, alpha=b)
        else:
            gram_NMM = factor_NMM @ gram_NMM @ factor_NMM
            factor_NMM = torch.baddbmm(gram_NMM, gram_NMM, gram_NMM, beta=b, alpha=c)
        factor_NMM.diagonal(dim1=1, dim2=2).add_(a)
        turn_NMM = factor_NMM if turn_NMM is None else factor_NMM @ turn_NMM
    assert turn_NMM is not None
    return x_NRC @ turn_NMM if tall else turn_NMM @ x_NRC


class MuonWithAdamW(Optimizer):
    """Two optimisers that step, schedule, save and load as one."""

    def __init__(
        self, hidden: list[nn.Parameter], other: list[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        self.parts: list[Optimizer] = []
        if hidden:
            self.parts.append(
                Float32Muon(
                    hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        if other:
            # On a GPU one kernel for all; on a CPU torch's default, for the same bits.
            fused = True if all(p.device.type == "cuda" for p in other) else None
            self.parts.append(AdamW(other, lr=lr, weight_decay=weight_decay, fused=fused))
        super().__init__([p for part in self.parts for p in part.param_groups], {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        # Schedulers and clipping reach the parameters through `param_groups`: the same dicts that
        # the parts step with.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares three overloads
        """One step of each part."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for part, state in zip(
            self.parts, cast(list[dict[str, Any]], state_dict["parts"]), strict=True
        ):
            part.load_state_dict(state)
        self._share_groups()


def split_parameters(model: PreTrainedModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (2-D weights inside the backbone, all others: embeddings, heads,
    vectors).
    """
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    inner = (
        model.get_base_model() if hasattr(model, "get_base_model") else model
    )  # peft wraps head and backbone together
    backbone = {id(p) for p in inner.base_model.parameters()}
    head = model.get_output_embeddings()
    if head is not None:
        embeddings |= {id(p) for p in head.parameters()}
    hidden: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (
                hidden if p.ndim == 2 and id(p) in backbone and id(p) not in embeddings else other
            ).append(p)
    return hidden, other
