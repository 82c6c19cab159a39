"""The optimisers that can be set. AdamW is transformers' own; Muon is joined with AdamW here.

Muon (momentum, orthogonalised) suits the 2-D hidden weights only; embeddings, heads and vectors keep AdamW.
`adjust_lr_fn="match_rms_adamw"` scales its updates to AdamW's size, so one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["MuonWithAdamW", "split_parameters"]


class MuonWithAdamW(Optimizer):
    """Two optimisers that step, schedule, save and load as one."""

    def __init__(self, hidden: list[nn.Parameter], other: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        self.parts: list[Optimizer] = []
        if hidden:
            self.parts.append(Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if other:
            self.parts.append(AdamW(other, lr=lr, weight_decay=weight_decay))
        super().__init__([p for part in self.parts for p in part.param_groups], {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        # Schedulers and clipping reach the parameters through `param_groups`: the very dicts that the parts step with.
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
        """Restore what `state_dict` gave."""
        for part, state in zip(self.parts, cast(list[dict[str, Any]], state_dict["parts"]), strict=True):
            part.load_state_dict(state)
        self._share_groups()


def split_parameters(model: PreTrainedModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (2-D weights inside the backbone, all others: embeddings, heads, vectors)."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft wraps head and backbone together
    backbone = {id(p) for p in inner.base_model.parameters()}
    head = model.get_output_embeddings()
    if head is not None:
        embeddings |= {id(p) for p in head.parameters()}
    hidden: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (hidden if p.ndim == 2 and id(p) in backbone and id(p) not in embeddings else other).append(p)
    return hidden, other
