"""Feeds a transformers model batches of paged tokens, in the fastest way that gives the model's own logits.

Three ways: the compiled forward pass (native.c; Llama-like models on a CPU), transformers' own forward pass through our
attention (`glore.sampling.attention`), or neither; then callers fall back on plain forward passes. A way is taken only if its
logits agree with the model's plain forward pass on a few tokens.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.sampling.attention import ATTENTION_NAME, KeyValues, Reading, register
from glore.sampling.batch import Batch, Ints32, prompt_batches
from glore.sampling.draw import DrawSettings, draw_each
from glore.sampling.native import Library, library
from glore.sampling.native_call import NativeModel, draw_natively
from glore.sampling.tree import PAGE_SIZE, PageTree, cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.config.engine import Quantization

__all__ = ["ModelRunner"]

_log = logging.getLogger(__name__)
_MISFITS = (NotImplementedError, TypeError, ValueError, RuntimeError, KeyError, AttributeError, AssertionError, IndexError)
_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""What the two ways know, where a model's settings name its layers' types."""


class ModelRunner:
    """One model. `way`: `native`, `paged`, or `plain` (then `forward` can't be used).

    `quantization`: of the native way, which alone can do it.
    """

    def __init__(self, model: PreTrainedModel, ways: tuple[str, ...] = ("native", "paged"), quantization: Quantization = "none") -> None:
        self.model = model
        self._quantization = quantization
        self.device = next(model.parameters()).device
        self._native: NativeModel | None = None
        self._library: Library | None = None
        self._keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        if next(iter(ways), "") == "plain":
            ways = ()
        self.way = next((way for way in ways if self._fits(way)), "plain")

    @property
    def products(self) -> str:
        """What the compiled code computes products in: `float32`, `bfloat16`, `int16` or `int8`; else the model's own type."""
        return self._native.products if self._native is not None else str(next(self.model.parameters()).dtype).removeprefix("torch.")

    def pages_for(self, n_pages: int) -> KeyValues:
        """Room for the keys and values of so many pages, all layers (committed as it is used on a CPU)."""
        return KeyValues(n_pages, PAGE_SIZE if self._library is not None else 1)

    def draw(
        self, logits_RV: torch.Tensor, row_C: npt.NDArray[np.int64], uniform_C: npt.NDArray[np.float32], settings: DrawSettings
    ) -> torch.Tensor:
        """One token id per completion [C] int64, each from its row of logits that `forward` gave (`glore.sampling.draw`)."""
        if self._library is None:
            return draw_each(logits_RV, row_C, uniform_C, settings)
        return draw_natively(self._library, logits_RV, row_C, uniform_C, settings)

    @torch.inference_mode()
    def forward(self, batch: Batch, store: KeyValues, n_threads: int = 1) -> torch.Tensor:
        """Logits [S, V] of the selected queries in float32; keys and values go to the store.

        `n_threads`: of the compiled code; torch has its own setting.
        """
        if self.way == "native":
            assert self._native is not None
            if not (self._native.current if batch.dependent else self._native.unchanged):
                self._native = NativeModel(self.model, self._native.library, self._quantization)
            pairs = [store.layer(i, self._native.like) for i in range(self._native.n_layers)]
            return self._native.forward(batch, pairs, n_threads)
        selected = torch.from_numpy(batch.selected.astype(np.int64)).to(self.device)
        output = self.model(
            input_ids=torch.from_numpy(batch.tokens.astype(np.int64)).to(self.device)[None],
            position_ids=torch.from_numpy(batch.positions.astype(np.int64)).to(self.device)[None],
            use_cache=False,
            glore_reading=Reading(store, batch, self.device, self._library),
            **({"logits_to_keep": selected} if self._keep else {}),
        )
        logits: torch.Tensor = output.logits[0] if self._keep else output.logits[0, selected]
        return logits.float()

    def _fits(self, way: str) -> bool:
        """Set `way` up; whether it gives the model's own logits, for a prompt read at once and in two parts."""
        before = self.model.config._attn_implementation
        if before == ATTENTION_NAME and way == "native":
            return False  # nothing to compare with
        parameter = next(self.model.parameters())
        on_cpu = self.device.type == "cpu"
        self._library = library() if on_cpu and (way == "native" or parameter.dtype == torch.float32) else None
        self.way = way
        rope = getattr(self.model.config, "rope_parameters", None) or {}
        try:
            if "dynamic" in str(rope) or "longrope" in str(rope):
                raise NotImplementedError("rotary frequencies that depend on the longest position of the batch")
            if other := set(getattr(self.model.config.get_text_config(), "layer_types", None) or ()) - _LAYER_TYPES:
                raise NotImplementedError(f"layers of the types {', '.join(sorted(other))}")  # a short text may not show the difference
            if before != ATTENTION_NAME:
                expected = self._plain_logits()
            if way == "native":
                if self._library is None:
                    return False
                self._native = NativeModel(self.model, self._library, self._quantization)
            else:
                register()
                self.model.set_attn_implementation(ATTENTION_NAME)
                if before == ATTENTION_NAME:
                    return True
            is_exact = self.products == "float32" and parameter.dtype == torch.float32
            if all(_alike(logits, expected, self.products, is_exact) for logits in (self._paged_logits(), self._continued_logits())):
                return True
            _log.info("%s: the logits of the %s way differ", type(self.model).__name__, way)
        except _MISFITS as error:
            _log.info("%s can't be read the %s way: %s", type(self.model).__name__, way, error)
        self._native = None
        self.model.set_attn_implementation(before)
        return False

    def _texts(self) -> list[list[list[int]]]:
        """Segments of two texts that begin alike."""
        n_vocab = self.model.get_input_embeddings().weight.shape[0]
        head, one, other = ([(a * i + b) % n_vocab for i in range(n)] for a, b, n in ((7, 3, 18), (11, 1, 14), (5, 2, 1)))
        return [[head, one], [head, other]]

    @torch.inference_mode()
    def _plain_logits(self) -> torch.Tensor:
        texts = [torch.tensor([[*segments[0], *segments[1]]], device=self.device) for segments in self._texts()]
        return torch.stack([self.model(input_ids=ids, use_cache=False).logits[0, -1].float() for ids in texts])

    def _paged_logits(self) -> torch.Tensor:
        tree = PageTree(8)
        store = self.pages_for(8)
        logits = {}
        for segments in self._texts():
            found = tree.acquire(cut(segments))
            assert found is not None
            for batch, nodes in prompt_batches(tree, found[1], [found[0]], max_tokens=17):
                for node, row in zip(nodes, self.forward(batch, store), strict=True):
                    logits[node] = row
        return torch.stack(list(logits.values()))

    def _continued_logits(self) -> torch.Tensor:
        """The same, where the second segments are a completion's, read token by token."""
        tree = PageTree(8)
        store = self.pages_for(8)
        logits = []
        for head, tail in self._texts():
            found, page = tree.acquire(cut([head])), tree.take(1)
            assert found is not None
            assert page is not None
            for batch, _ in prompt_batches(tree, found[1], [found[0]], max_tokens=17):
                self.forward(batch, store)
            tree.fill[page], tree.start[page] = PAGE_SIZE, len(head)
            pages = [*found[0].pages, *page]
            for n, token in enumerate(tail):
                batch = Batch(
                    tokens=_numbers(token),
                    positions=_numbers(len(head) + n),
                    write_page=_numbers(page[0]),
                    write_offset=_numbers(n),
                    chain=_numbers(0),
                    n_pages=_numbers(len(pages)),
                    n_last=_numbers(n + 1),
                    n_prompt=_numbers(len(pages) - 1),
                    table=_numbers(*pages)[None],
                    fill=tree.fill,
                    start=tree.start,
                    selected=_numbers(0),
                    dependent=False,
                )
                row = self.forward(batch, store)[0]
            logits.append(row)
        return torch.stack(logits)


def _alike(logits: torch.Tensor, expected: torch.Tensor, products: str, is_exact: bool) -> bool:
    """Whether logits [B, V] are those expected, up to what the products were rounded by."""
    if products in ("int16", "int8"):
        # A mistake in the layout gives logits as far from the expected ones as these are from their mean.
        centred = expected - expected.mean(-1, keepdim=True)
        return bool(((logits - expected).norm(dim=-1) < 0.3 * centred.norm(dim=-1)).all())
    tolerance = 1e-3 if is_exact else 0.15
    return torch.allclose(logits, expected, rtol=tolerance, atol=tolerance)


def _numbers(*values: int) -> Ints32:
    return np.array(values, np.int32)
