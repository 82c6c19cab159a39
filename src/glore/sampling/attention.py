"""Keys and values of the running batch, and the attention that reads them, registered with transformers.

Every token of a prompt is stored once (a *node*), however many completions grow from it; each completion (a *row*) stores
only its own tokens. A decoding row attends to [its node | its own tokens]; the rows of one node go through the node's keys in
one matrix product. Any model whose layers call transformers' attention interface works unchanged: it is fed packed
tokens `[1, N]` with explicit positions, and this function does all that concerns past tokens.

The products and the softmax are written out for decoding, because `scaled_dot_product_attention` is several times slower
on a CPU for one query token.

Axes: N packed tokens, R rows, P nodes, G rows of a node, H key/value heads, Q query heads per key/value head, T tokens, D head size.
"""

from __future__ import annotations

import dataclasses

import torch
from transformers import AttentionInterface

__all__ = ["ATTENTION_NAME", "Decode", "KeyValueStore", "Prefill", "register"]

ATTENTION_NAME = "glore"
_NODE_STEP = 32
"""Capacities grow in steps of at least so many tokens or rows."""


class KeyValueStore:
    """Per layer: node keys [P, H, D, T] and values [P, H, T, D], row keys and values [R, H, D, T], grown on demand.

    Tokens lie innermost wherever that made the products faster on a CPU (benchmarks/LOG.md).

    A CPU gives zeroed memory lazily, so what is never written costs nothing there.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.node_capacity = 0
        self.node_tokens = 0
        self.row_tokens = 0
        self.node: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.row: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.inference_mode()
    def reserve(self, n_nodes: int, node_tokens: int, row_tokens: int) -> None:
        """Make room for so many nodes of so many tokens and for rows of so many own tokens (existing contents stay)."""
        if n_nodes > self.node_capacity or node_tokens > self.node_tokens:
            self.node_capacity = max(self.node_capacity, _grown(n_nodes, self.node_capacity))
            self.node_tokens = max(self.node_tokens, _grown(node_tokens, self.node_tokens))
            self.node = {
                i: (_enlarged(k, self.node_capacity, 3, self.node_tokens), _enlarged(v, self.node_capacity, 2, self.node_tokens))
                for i, (k, v) in self.node.items()
            }
        if row_tokens > self.row_tokens:
            self.row_tokens = _grown(row_tokens, self.row_tokens)
            self.row = {
                i: (_enlarged(k, self.max_rows, 3, self.row_tokens), _enlarged(v, self.max_rows, 3, self.row_tokens))
                for i, (k, v) in self.row.items()
            }

    def layer(self, index: int, like: torch.Tensor) -> None:
        """Create layer `index` for keys like `like` [.., H, D] when it is seen first."""
        if index not in self.node:
            n_heads, size = like.shape[-2:]
            nodes, rows = self.node_capacity, self.max_rows
            # Zeros: masked columns still meet a weight of zero in the product, and zero times an uninitialised NaN is NaN.
            self.node[index] = (
                like.new_zeros(nodes, n_heads, size, self.node_tokens),
                like.new_zeros(nodes, n_heads, self.node_tokens, size),
            )
            row_shape = (rows, n_heads, size, self.row_tokens)
            self.row[index] = (like.new_zeros(row_shape), like.new_zeros(row_shape))

    @torch.inference_mode()
    def move(self, kind: str, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy slots `source` over slots `target` (both [M] int64) of all nodes (`kind` "node") or rows ("row")."""
        for pair in (self.node if kind == "node" else self.row).values():
            for tensor in pair:
                tensor[target] = tensor[source]


def _enlarged(old: torch.Tensor, n_slots: int, token_axis: int, n_tokens: int) -> torch.Tensor:
    shape = list(old.shape)
    shape[0], shape[token_axis] = n_slots, n_tokens
    new = old.new_zeros(shape)
    new[tuple(slice(0, n) for n in old.shape)] = old
    return new


def _grown(needed: int, have: int) -> int:
    return max(-(-needed // _NODE_STEP) * _NODE_STEP, have + have // 2)


@dataclasses.dataclass(slots=True)
class Prefill:
    """Prompts read for the first time, packed behind one another.

    `pad` [B, T]: packed index of each prompt's tokens (0 beyond its end); `unpad` [N]: the inverse, into B*T;
    `slots`: the node that each prompt becomes.
    """

    store: KeyValueStore
    pad: torch.Tensor
    unpad: torch.Tensor
    slots: torch.Tensor

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None, softcap: float | None
    ) -> torch.Tensor:
        """q [N, H*Q, D], k and v [N, H, D] → [N, H*Q, D]; stores the keys and values."""
        n_prompts, n_tokens = self.pad.shape
        flat = self.pad.view(-1)
        q_B, k_B, v_B = (x.index_select(0, flat).view(n_prompts, n_tokens, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        self.store.layer(layer, k)
        node_k, node_v = self.store.node[layer]
        node_k[self.slots, :, :, :n_tokens] = k_B.transpose(2, 3)
        node_v[self.slots, :, :n_tokens] = v_B
        grouped = q_B.shape[1] != k_B.shape[1]
        if softcap is None and (window is None or n_tokens <= window):
            out = torch.nn.functional.scaled_dot_product_attention(q_B, k_B, v_B, is_causal=True, scale=scaling, enable_gqa=grouped)
        else:
            at = torch.arange(n_tokens, device=q.device)
            hidden = at[None, :] > at[:, None]
            if window is not None:
                hidden = hidden | (at[None, :] <= at[:, None] - window)
            bias_TT = torch.zeros(n_tokens, n_tokens, device=q.device).masked_fill_(hidden, float("-inf"))
            out = _written_out(q_B, k_B, v_B, bias_TT, scaling, softcap)
        return out.transpose(1, 2).reshape(n_prompts * n_tokens, *q.shape[1:]).index_select(0, self.unpad)


@dataclasses.dataclass(slots=True)
class Decode:
    """One token for each of R rows.

    `grid` [P, G]: the rows of each node (0 where a node has fewer); `node`, `place` [R]: each row's place in the grid;
    `write` [R]: own column that this token takes; `node_length`, `own_length` [R]: tokens that count, this one included.
    """

    store: KeyValueStore
    grid: torch.Tensor
    node: torch.Tensor
    place: torch.Tensor
    write: torch.Tensor
    rows: torch.Tensor
    node_length: torch.Tensor
    own_length: torch.Tensor
    n_node_tokens: int
    n_own_tokens: int
    one_to_one: bool
    """Row r is the only row of node r, so that nothing need be gathered."""
    _bias: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None, softcap: float | None
    ) -> torch.Tensor:
        """q [R, H*Q, D], k and v [R, H, D] → [R, H*Q, D]; stores the keys and values."""
        n_rows, n_heads, size = k.shape
        n_queries = q.shape[1] // n_heads
        n_nodes, n_group = self.grid.shape
        n_node, n_own = self.n_node_tokens, self.n_own_tokens
        own_k, own_v = self.store.row[layer]
        own_k[self.rows, :, :, self.write] = k
        own_v[self.rows, :, :, self.write] = v
        node_k, node_v = self.store.node[layer]
        q = (q * scaling).view(n_rows, n_heads, n_queries, size)
        scores = q.new_empty(n_rows, n_heads, n_queries, n_node + n_own)
        if self.one_to_one:
            scores[..., :n_node] = q @ node_k[:n_rows, ..., :n_node]
        else:
            q_grid = q[self.grid].transpose(1, 2).reshape(n_nodes, n_heads, n_group * n_queries, size)
            of_grid = q_grid @ node_k[:n_nodes, ..., :n_node]
            of_grid = of_grid.view(n_nodes, n_heads, n_group, n_queries, n_node)
            scores[..., :n_node] = of_grid[self.node, :, self.place]
        scores[..., n_node:] = q @ own_k[:n_rows, ..., :n_own]
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores += self.bias(window, scores.dtype)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        out = weights[..., n_node:] @ own_v[:n_rows, ..., :n_own].transpose(2, 3)
        if self.one_to_one:
            out += weights[..., :n_node] @ node_v[:n_rows, :, :n_node]
        else:
            to_grid = weights[..., :n_node][self.grid].transpose(1, 2).reshape(n_nodes, n_heads, n_group * n_queries, n_node)
            of_grid = (to_grid @ node_v[:n_nodes, :, :n_node]).view(n_nodes, n_heads, n_group, n_queries, size)
            out += of_grid[self.node, :, self.place]
        return out.view(n_rows, n_heads * n_queries, size)

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """0 where a row may look, -inf where not: [R, 1, 1, node tokens + own tokens]; the same for all layers of one kind."""
        if (window or 0) not in self._bias:
            device = self.node_length.device
            at_node = torch.arange(self.n_node_tokens, device=device)[None]
            at_own = torch.arange(self.n_own_tokens, device=device)[None]
            node_length, own_length = self.node_length[:, None], self.own_length[:, None]
            hidden_node, hidden_own = at_node >= node_length, at_own >= own_length
            if window is not None:
                first = node_length + own_length - window
                hidden_node = hidden_node | (at_node < first)
                hidden_own = hidden_own | (at_own + node_length < first)
            hidden = torch.cat([hidden_node, hidden_own], dim=1)
            self._bias[window or 0] = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))[
                :, None, None
            ]
        return self._bias[window or 0]


def _written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, scaling: float, softcap: float | None
) -> torch.Tensor:
    """Plain attention: q [B, H*Q, T, D], k and v [B, H, T, D], bias [T, T]."""
    repeats = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
    scores = (q @ k.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return torch.softmax(scores.float() + bias, dim=-1).to(q.dtype) @ v


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
    glore_batch: Prefill | Decode | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query [1, heads, N, D], key and value [1, H, N, D] → [1, N, heads, D]."""
    if glore_batch is None:
        raise NotImplementedError("the model does not hand keyword arguments down to its attention")
    strange = [name for name in ("s_aux", "position_bias", "cache") if others.get(name) is not None]
    if strange or key.shape[-1] != value.shape[-1]:
        raise NotImplementedError(f"attention with {strange or 'values of another size than keys'}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = module.layer_idx
    assert isinstance(layer, int)
    return glore_batch.attend(layer, q, k, v, scale, sliding_window, softcap)[None], None


def register() -> None:
    """Make the attention known to transformers under ATTENTION_NAME. Repeating it changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
