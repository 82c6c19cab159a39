"""The input of one forward pass: tokens, where their keys and values go, and the pages that each of
them attends to.

Axes: N queries (tokens that are computed), C chains, E pages of the longest chain, P pages, S
selected queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from glore.engines.local.prefix_tree import Node, PrefixTree

__all__ = ["Batch", "Ints32", "prompt_batches"]

Ints32 = npt.NDArray[np.int32]


@dataclasses.dataclass(slots=True)
class Batch:
    """See the module's docstring; all arrays int32 and contiguous."""

    tokens: Ints32
    positions: Ints32
    write_page: Ints32
    """[N]; -1: keys and values are stored already."""
    write_offset: Ints32
    chain: Ints32
    """[N]: the query's row of `table`."""
    n_pages: Ints32
    """[N]: pages of that row that count."""
    n_last: Ints32
    """[N]: tokens of the last of them that count, the query's own included."""
    n_prompt: Ints32
    """[N]: pages of that row that are a prompt's; those after them are a completion's own."""
    table: Ints32
    """[C, E] page numbers."""
    fill: Ints32
    """[P]: tokens in a page that is not a chain's last."""
    start: Ints32
    """[P]: position of a page's first token."""
    selected: Ints32
    """[S]: queries whose logits are wanted."""
    dependent: bool
    """Whether queries read keys that others of the same batch write."""


def prompt_batches(
    tree: PrefixTree, new: Sequence[Node], wanted: Sequence[Node], max_tokens: int
) -> Iterator[tuple[Batch, list[Node]]]:
    """Batches of about `max_tokens` tokens that fill the `new` nodes (parents before children).

    Each comes with the nodes whose last token's logits it gives: together those are `wanted`, each
    once. Of a wanted node that is not new the last token is computed once more.
    """
    asked = dict.fromkeys(wanted)
    fresh = set(new)
    todo = [(node, True) for node in new] + [(node, False) for node in asked if node not in fresh]
    first = 0
    while first < len(todo):
        last, n_tokens = first, 0
        while last < len(todo) and (
            last == first or n_tokens + len(todo[last][0].tokens) <= max_tokens
        ):
            n_tokens += len(todo[last][0].tokens) if todo[last][1] else 1
            last += 1
        selected = [i for i in range(first, last) if todo[i][0] in asked]
        yield (
            _prompt_batch(tree, todo[first:last], [i - first for i in selected]),
            [todo[i][0] for i in selected],
        )
        first = last


def _prompt_batch(
    tree: PrefixTree, todo: Sequence[tuple[Node, bool]], selected: list[int]
) -> Batch:
    counts = np.array([len(node.tokens) if new else 1 for node, new in todo], np.int32)
    ends = np.cumsum(counts)
    depths = np.array([len(node.pages) for node, _ in todo], np.int32)
    table = np.zeros((len(todo), int(depths.max())), np.int32)
    for row, (node, _) in enumerate(todo):
        table[row, : len(node.pages)] = node.pages
    chain = np.repeat(np.arange(len(todo), dtype=np.int32), counts)
    skipped = np.array([0 if new else len(node.tokens) - 1 for node, new in todo], np.int32)
    offset = (
        np.arange(chain.size, dtype=np.int32)
        - np.repeat((ends - counts).astype(np.int32), counts)
        + np.repeat(skipped, counts)
    )
    page = np.where(
        np.array([new for _, new in todo]), table[np.arange(len(todo)), depths - 1], -1
    ).astype(np.int32)
    return Batch(
        tokens=np.array(
            [t for node, new in todo for t in (node.tokens if new else node.tokens[-1:])], np.int32
        ),
        positions=np.repeat(np.array([node.start for node, _ in todo], np.int32), counts) + offset,
        write_page=np.repeat(page, counts),
        write_offset=offset,
        chain=chain,
        n_pages=np.repeat(depths, counts),
        n_last=offset + np.int32(1),
        n_prompt=np.repeat(depths, counts),
        table=table,
        fill=tree.fill,
        start=tree.start,
        selected=(ends - 1)[selected].astype(np.int32),
        dependent=True,
    )
