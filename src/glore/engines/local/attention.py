"""Keys and values in pages, and the attention that reads them, registered with transformers.

Any model whose layers call transformers' attention interface works unchanged. It gets packed tokens
`[1, N]` with explicit positions, and the function registered here attends to the pages. Attention
to a page is computed once for all queries whose chain contains it. The parts of a query's chain are
merged by their log-sum-exp. On a CPU in float32 the compiled twin (forward.c) does the same.

Axes: N queries, P pages, U pages of one group, G queries per page, A (query, page) pairs, E pages
of a chain, H key/value heads, Q query heads per key/value head, D head size, T tokens of a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface

from glore.engines.local.batch import Batch, Ints32
from glore.engines.local.native.build import Library
from glore.engines.local.native.call import attend_natively
from glore.engines.local.prefix_tree import PAGE_SIZE

__all__ = ["ATTENTION_NAME", "ForwardContext", "KVCache", "register"]

ATTENTION_NAME = "glore"
_GROUPS = (1, 4, 16, 64)
"""Bounds of the number of queries of a page; pages between two of them are computed together."""
_HIDDEN = -1e30


class KVCache:
    """Per layer: keys [P, H, D, T] and values [P, H, T, D].

    The compiled code keeps the keys of completions' own pages as [H, T, D]. A CPU commits the
    memory as it is written. `multiple`: D is padded with zeros to a multiple of it.
    """

    def __init__(self, n_pages: int, multiple: int = 1) -> None:
        self.n_pages = n_pages
        self.multiple = multiple
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of layer `index`, created at its first use for keys like `like`
        [.., H, D].
        """
        if index not in self.layers:
            n_heads, size = like.shape[-2:]
            padded = -(-size // self.multiple) * self.multiple
            shapes = (
                (self.n_pages, n_heads, padded, PAGE_SIZE),
                (self.n_pages, n_heads, PAGE_SIZE, padded),
            )
            if like.device.type == "cpu" and like.dtype != torch.bfloat16:
                # numpy takes zeroed memory from the system, which torch would write once.
                dtype = str(like.dtype).removeprefix("torch.")
                self.layers[index] = (
                    torch.from_numpy(np.zeros(shapes[0], dtype)),
                    torch.from_numpy(np.zeros(shapes[1], dtype)),
                )
            else:
                # Zeros: hidden tokens still meet a weight of zero, and zero times an uninitialised
                # NaN is NaN.
                self.layers[index] = like.new_zeros(shapes[0]), like.new_zeros(shapes[1])
        return self.layers[index]

    @torch.inference_mode()
    def copy(self, sources: list[int], targets: list[int]) -> None:
        """Copy the pages `sources` [n] to the pages `targets` [n] in every layer."""
        for layer in self.layers.values():
            for pages in layer:
                pages[targets] = pages[sources]


@dataclasses.dataclass(slots=True)
class _Group:
    """Pages with similar numbers of queries."""

    pages: torch.Tensor
    """[U]"""
    queries: torch.Tensor
    """[U, G]: 0 where a page has fewer."""
    pairs: torch.Tensor
    """[U, G]: where the result goes; the number of pairs where a page has fewer."""


class ForwardContext:
    """What a model hands down to its attention: one batch and where its keys and values go."""

    def __init__(
        self, kv_cache: KVCache, batch: Batch, device: torch.device, library: Library | None = None
    ) -> None:
        self.kv_cache, self.batch, self.device = kv_cache, batch, device
        self.library = library
        self._groups: list[_Group] | None = None

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """q [N, H*Q, D], k and v [N, H, D] → [N, H*Q, D]. Stores the keys and values."""
        keys, values = self.kv_cache.layer(layer, k)
        if self.library is not None:
            return attend_natively(
                self.library, self.batch, (keys, values), q, k, v, scaling, window, softcap
            )
        if self._groups is None:
            self._prepare()
        keys[self._write_page, :, :, self._write_offset] = k[self._written]
        values[self._write_page, :, self._write_offset] = v[self._written]
        n_queries, n_heads, size = k.shape
        n_each = q.shape[1] // n_heads
        q = (q * scaling).view(n_queries, n_heads, n_each, size)
        shape = (self._n_pairs + 1, n_heads, n_each)
        top, total = (torch.full(shape, x, device=self.device) for x in (_HIDDEN, 0.0))
        part = torch.zeros((*shape, size), device=self.device)
        for group in self._groups or ():
            n_pages, n_group = group.queries.shape
            rows = (
                q[group.queries]
                .permute(0, 2, 1, 3, 4)
                .reshape(n_pages, n_heads, n_group * n_each, size)
            )
            scores = (
                (rows @ keys[group.pages])
                .float()
                .view(n_pages, n_heads, n_group, n_each, PAGE_SIZE)
            )
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            scores = scores.masked_fill(self._hidden(group, window)[:, None, :, None], _HIDDEN)
            most = scores.amax(dim=-1)
            weights = torch.exp(scores - most[..., None])
            flat = weights.view(n_pages, n_heads, n_group * n_each, PAGE_SIZE).to(v.dtype)
            sums = (
                (flat @ values[group.pages]).float().view(n_pages, n_heads, n_group, n_each, size)
            )
            for target, source in ((top, most), (total, weights.sum(dim=-1)), (part, sums)):
                target[group.pairs] = source.transpose(1, 2)
        top[-1], total[-1], part[-1] = _HIDDEN, 0, 0
        tops = top[self._pairs_of]
        weights = torch.exp(tops - tops.amax(dim=1, keepdim=True))
        out = (weights[..., None] * part[self._pairs_of]).sum(dim=1) / (
            weights * total[self._pairs_of]
        ).sum(dim=1)[..., None]
        return out.to(q.dtype).view(n_queries, n_heads * n_each, size)

    def _prepare(self) -> None:
        """Find which query attends to which page, once for all layers."""
        b = self.batch
        n_pages = b.table.shape[1]
        counts = np.arange(n_pages)[None] < b.n_pages[:, None]
        query, place = np.nonzero(counts)
        page = b.table[b.chain[query], place]
        last = place == b.n_pages[query] - 1
        n_pairs = query.size
        pairs_of = np.full(counts.shape, n_pairs)
        pairs_of[counts] = np.arange(n_pairs)
        self._n_pairs = n_pairs
        written = np.flatnonzero(b.write_page >= 0)
        (
            self._written,
            self._write_page,
            self._write_offset,
            self._pairs_of,
            self._limit,
            self._ahead,
        ) = (
            torch.from_numpy(x.astype(np.int64)).to(self.device)
            for x in (
                written,
                b.write_page[written],
                b.write_offset[written],
                pairs_of,
                np.append(np.where(last, b.n_last[query], b.fill[page]), 0),
                np.append(b.positions[query] - b.start[page], 0),
            )
        )
        self._groups = list(self._grouped(query, page))

    def _grouped(self, query: npt.NDArray[np.int64], page: Ints32) -> Iterator[_Group]:
        order = np.argsort(page, kind="stable")
        pages, starts, sizes = np.unique(page[order], return_index=True, return_counts=True)
        lower = 0
        for upper in (*_GROUPS, max(int(sizes.max()), _GROUPS[-1] + 1)):
            chosen = np.flatnonzero((sizes > lower) & (sizes <= upper))
            lower = upper
            if not chosen.size:
                continue
            at = np.arange(int(sizes[chosen].max()))[None]
            inside = at < sizes[chosen][:, None]
            pairs = order[np.where(inside, starts[chosen][:, None] + at, 0)]
            arrays = (
                pages[chosen].astype(np.int64),
                np.where(inside, query[pairs], 0),
                np.where(inside, pairs, query.size),
            )
            yield _Group(*(torch.from_numpy(a).to(self.device) for a in arrays))

    def _hidden(self, group: _Group, window: int | None) -> torch.Tensor:
        """[U, G, T]: tokens of a page that a query may not see."""
        at = torch.arange(PAGE_SIZE, device=self.device)
        hidden = at >= self._limit[group.pairs][..., None]
        if window is not None:
            hidden = hidden | (at <= self._ahead[group.pairs][..., None] - window)
        return hidden


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    glore_context: ForwardContext | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query [1, heads, N, D], key and value [1, H, N, D] →
    [1, N, heads, D].
    """
    if glore_context is None:
        raise NotImplementedError("the model does not hand keyword arguments down to its attention")
    unknown = [name for name in ("s_aux", "position_bias", "cache") if others.get(name) is not None]
    if unknown or key.shape[-1] != value.shape[-1]:
        raise NotImplementedError(f"attention with {unknown or 'values of another size than keys'}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = module.layer_idx
    assert isinstance(layer, int)
    return glore_context.attend(layer, q, k, v, scale, sliding_window, softcap)[None], None


def register() -> None:
    """Register the attention with transformers as ATTENTION_NAME. Repeating it changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
