"""Whether a backend gives the model's own logits, judged by the model's own rounding.

The reference is the model's own forward pass in float32. The baseline is its forward pass in the
model's own type. A backend in bfloat16 may be as far from the reference as the baseline, and
somewhat further. A layout fault (a wrong page, a position that is off by one, a missing window)
takes it many times as far. The reference needs no second copy of the model: each module's weights
are float32 only while it is called.

Axes: B places in the trial's texts whose logits are compared, V vocabulary (or labels).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.engines.local.batch import Batch, Ints32, prompt_batches
from glore.engines.local.prefix_tree import PAGE_SIZE, PrefixTree, cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.engines.local.runner import ModelRunner

__all__ = ["Expected", "expected_logits", "fault", "trial_logits"]

_N_PAGES = 8
_MOST_TOKENS = 17
"""Of one forward pass: the texts are read in parts."""
_OVERALL, _ANYWHERE = 2.0, 4.0
"""How many times the baseline's error a backend's may be: over all places (root mean square), and
at one of them.
"""
_FLOOR = 2e-3
"""Errors below this share of the logits' standard deviation are never a fault."""
_EXACT = 1e-3
_INTEGERS_OVERALL = 0.3
"""The error of products of integers over all places, as a share of the logits' spread; twice as
much at one of them.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """Logits that a backend is compared with."""

    reference: list[torch.Tensor]
    """Per text, logits of all its tokens in float32."""
    baseline: list[torch.Tensor]
    """The same in the model's own type."""

    def at(self, text: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Reference and baseline logits [V] after the token at that place."""
        return self.reference[text][place], self.baseline[text][place]


def _texts(model: PreTrainedModel) -> list[list[list[int]]]:
    """Segments of two texts with the same beginning."""
    n_vocab = model.get_input_embeddings().weight.shape[0]
    head, one, other = (
        [(a * i + b) % n_vocab for i in range(n)]
        for a, b, n in ((7, 3, 18), (11, 1, 22), (5, 2, 1))
    )
    return [[head, one], [head, other]]


def expected_logits(model: PreTrainedModel) -> Expected:
    """The trial's texts read by the model's own forward pass."""
    baseline = _own_logits(model)
    if next(model.parameters()).dtype == torch.float32:
        return Expected(baseline, baseline)
    with _in_float32(model):
        return Expected(_own_logits(model), baseline)


@torch.no_grad()
def _own_logits(model: PreTrainedModel) -> list[torch.Tensor]:
    device = next(model.parameters()).device
    texts = [torch.tensor([[*head, *tail]], device=device) for head, tail in _texts(model)]
    return [model(input_ids=ids, use_cache=False).logits[0].float() for ids in texts]


@contextlib.contextmanager
def _in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Every module's own weights are float32 while it is called.

    So the first output is float32, and all that follow.
    """
    narrow: dict[torch.nn.Parameter, torch.Tensor] = {}

    def widen(module: torch.nn.Module, _: object) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point() and parameter not in narrow:
                narrow[parameter] = parameter.data
                parameter.data = parameter.data.float()

    def restore(module: torch.nn.Module, *_: object) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter in narrow:
                parameter.data = narrow.pop(parameter)

    hooks = []
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            hooks += [
                module.register_forward_pre_hook(widen),
                module.register_forward_hook(restore),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in narrow.items():
            parameter.data = data


def trial_logits(
    runner: ModelRunner, model: PreTrainedModel
) -> dict[tuple[int, int], list[torch.Tensor]]:
    """(text, place) → the logits [V] that the runner gives there.

    The texts are read as prompts in parts, and as completions token by token.
    """
    found: dict[tuple[int, int], list[torch.Tensor]] = {}
    for part in (_as_prompts(runner, model), _as_completions(runner, model)):
        for place, logits in part.items():
            found.setdefault(place, []).append(logits)
    return found


def _as_prompts(runner: ModelRunner, model: PreTrainedModel) -> dict[tuple[int, int], torch.Tensor]:
    tree = PrefixTree(_N_PAGES)
    kv_cache = runner.new_kv_cache(_N_PAGES)
    logits = {}
    for text, segments in enumerate(_texts(model)):
        found = tree.acquire(cut(segments))
        assert found is not None
        for batch, nodes in prompt_batches(tree, found[1], found[1], _MOST_TOKENS):
            for node, row in zip(nodes, runner.forward(batch, kv_cache), strict=True):
                logits[text, node.end - 1] = row
    return logits


def _as_completions(
    runner: ModelRunner, model: PreTrainedModel
) -> dict[tuple[int, int], torch.Tensor]:
    """Logits of the second segments, read token by token as completions are."""
    tree = PrefixTree(_N_PAGES)
    kv_cache = runner.new_kv_cache(_N_PAGES)
    logits = {}
    for text, (head, tail) in enumerate(_texts(model)):
        found = tree.acquire(cut([head]))
        own = tree.allocate(-(-len(tail) // PAGE_SIZE))
        assert found is not None
        assert own is not None
        for batch, _ in prompt_batches(tree, found[1], [found[0]], _MOST_TOKENS):
            runner.forward(batch, kv_cache)
        for n, page in enumerate(own):
            tree.fill[page], tree.start[page] = PAGE_SIZE, len(head) + n * PAGE_SIZE
        for n, token in enumerate(tail):
            pages = [*found[0].pages, *own[: n // PAGE_SIZE + 1]]
            logits[text, len(head) + n] = runner.forward(
                _single(tree, pages, token, len(head) + n, len(found[0].pages)), kv_cache
            )[0].clone()
    return logits


def _single(tree: PrefixTree, pages: list[int], token: int, position: int, n_prompt: int) -> Batch:
    """One token of one row, the last of its chain."""
    offset = position - int(tree.start[pages[-1]])
    return Batch(
        tokens=_numbers(token),
        positions=_numbers(position),
        write_page=_numbers(pages[-1]),
        write_offset=_numbers(offset),
        chain=_numbers(0),
        n_pages=_numbers(len(pages)),
        n_last=_numbers(offset + 1),
        n_prompt=_numbers(n_prompt),
        table=_numbers(*pages)[None],
        fill=tree.fill,
        start=tree.start,
        selected=_numbers(0),
        dependent=False,
    )


def _numbers(*values: int) -> Ints32:
    return np.array(values, np.int32)


def fault(
    found: dict[tuple[int, int], list[torch.Tensor]],
    expected: Expected,
    products: str,
    is_exact: bool,
) -> str | None:
    """Why the logits that a backend gave are refused; none: they agree.

    `products`: the type of its products. `is_exact`: model and products are float32.
    """
    pairs = [
        (logits.float(), *expected.at(*place))
        for place, several in found.items()
        for logits in several
    ]
    got_BV, reference_BV, baseline_BV = (torch.stack(x) for x in zip(*pairs, strict=True))
    if not bool(torch.isfinite(got_BV).all()):
        return "its logits are not finite"
    spread = float((reference_BV - reference_BV.mean(-1, keepdim=True)).square().mean().sqrt())
    if products in ("int16", "int8"):
        # A mistake in the layout gives logits as far from the expected ones as these are from their
        # mean. Inputs with a few very large numbers, as real models have them, lose precision.
        spread_B = (reference_BV - reference_BV.mean(-1, keepdim=True)).norm(dim=-1)
        share_B = (got_BV - reference_BV).norm(dim=-1) / spread_B
        overall, worst = float(share_B.square().mean().sqrt()), float(share_B.max())
        if overall < _INTEGERS_OVERALL and worst < 2 * _INTEGERS_OVERALL:
            return None
        return (
            f"its logits are {overall:.0%} (at worst {worst:.0%}) of their spread from those of "
            f"the model's own forward pass; {_INTEGERS_OVERALL:.0%} (at worst "
            f"{2 * _INTEGERS_OVERALL:.0%}) are allowed"
        )
    if is_exact:
        difference = float((got_BV - reference_BV).abs().max())
        return (
            None
            if torch.allclose(got_BV, reference_BV, rtol=_EXACT, atol=_EXACT)
            else f"its logits differ by up to {difference:.2g}"
        )
    error_B = (got_BV - reference_BV).square().mean(-1).sqrt()
    own = float((baseline_BV - reference_BV).square().mean().sqrt())
    error, worst = float(error_B.square().mean().sqrt()), float(error_B.max())
    allowed = max(own, _FLOOR * spread)
    if error <= _OVERALL * allowed and worst <= _ANYWHERE * allowed:
        return None
    return (
        f"its logits are {error:.2g} (at worst {worst:.2g}) from float32, the model's own forward "
        f"pass {own:.2g}"
    )
