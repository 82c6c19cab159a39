"""Which tokens are stored where: a tree of pages, shared by everything that begins with the same
tokens.

A *page* holds the keys and values of up to PAGE_SIZE consecutive tokens. Prompts lie in a tree of
pages: pages of equal tokens after equal tokens are one node, so that a question, the steps of its
drafts, and every prefix of them are stored once. The tokens that a completion adds lie in pages of
its own. A segment of a prompt begins a new page, hence prefixes that end between segments share all
their pages. The number of pages is fixed at the start; pages that nothing refers to are kept until
their room is needed, the one unused for longest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

__all__ = ["PAGE_SIZE", "Chunk", "Node", "PageTree", "cut"]

PAGE_SIZE = 16
"""Tokens of a page (forward.c has the same number): one AVX-512 register of float32."""
_KEPT_PAGES = 256
"""So many pages that nobody uses any more are kept in any case."""

Chunk = tuple[int, ...]


def cut(segments: Iterable[Sequence[int]]) -> list[Chunk]:
    """The chunks of a prompt: each segment's tokens, a page at a time."""
    return [tuple(s[i : i + PAGE_SIZE]) for s in segments for i in range(0, len(s), PAGE_SIZE)]


class Node:
    """A page of a prompt: its tokens follow those of `parent`."""

    __slots__ = ("children", "end", "pages", "parent", "references", "start", "tokens", "value")

    def __init__(self, parent: Node | None, tokens: Chunk, page: int) -> None:
        self.parent = parent
        self.tokens = tokens
        self.start: int = parent.end if parent is not None else 0
        """Position of its first token."""
        self.end: int = self.start + len(tokens)
        self.pages: tuple[int, ...] = (*parent.pages, page) if parent is not None else ()
        """Page numbers from the first token of the text to here."""
        self.children: dict[Chunk, Node] = {}
        self.references = 0
        """Users of this page or of one after it."""
        self.value = 0.0
        """A number the user of the tree keeps here (a step's score)."""

    def chain(self) -> Iterator[Node]:
        """This node and those before it, back to the first of the text."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class PageTree:
    """Hands out pages 0 … n_pages - 1."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self.fill = np.zeros(n_pages, np.int32)
        """[pages]: tokens in a page that is not the last of a chain."""
        self.start = np.zeros(n_pages, np.int32)
        """[pages]: position of a page's first token."""
        self._free = list(range(n_pages - 1, -1, -1))
        self._idle: OrderedDict[Node, None] = OrderedDict()
        self._root = Node(None, (), -1)
        self._n_kept = 0
        """Nodes that someone uses, the root among them."""
        self._n_own = 0
        self._n_touched = 0
        """Pages that were ever handed out: the first so many, since they are handed out in order.
        """
        self.n_computed = 0
        """Prompt tokens stored so far."""
        self.n_asked = 0
        """Prompt tokens asked for so far; those beyond `n_computed` were there already."""

    @property
    def n_reachable(self) -> int:
        """Pages that are free or can be made so."""
        return self.n_pages - self._n_kept + bool(self._root.references) - self._n_own

    def acquire(self, chunks: Sequence[Chunk]) -> tuple[Node, list[Node]] | None:
        """The node at the end of `chunks`, kept until `release`, and the nodes that are new
        (whoever asks must fill them).

        None where there is not enough room; then nothing has changed.
        """
        leaf = self._root
        new: list[Node] = []
        for n, chunk in enumerate(chunks):
            child = leaf.children.get(chunk)
            if child is None:
                # What is there already must not be evicted to make room for the rest.
                self.refer(leaf)
                new = self._grow(leaf, chunks[n:])
                self.release(leaf)
                if not new:
                    return None
                child = new[-1]
                leaf = child
                break
            leaf = child
        self.refer(leaf)
        self.n_asked += leaf.end
        self.n_computed += sum(len(n.tokens) for n in new)
        return leaf, new

    def _grow(self, leaf: Node, chunks: Sequence[Chunk]) -> list[Node]:
        pages = self._pages(len(chunks))
        if pages is None:
            return []
        new = []
        for chunk, page in zip(chunks, pages, strict=True):
            node = Node(leaf, chunk, page)
            leaf.children[chunk] = node
            self.fill[page], self.start[page] = len(chunk), node.start
            new.append(node)
            leaf = node
        return new

    def refer(self, node: Node) -> None:
        """Keep the node, and all before it, for one more user."""
        at: Node | None = node
        while at is not None:
            if not at.references:
                self._n_kept += 1
                self._idle.pop(at, None)
            at.references += 1
            at = at.parent

    def release(self, node: Node) -> None:
        """One user less of the node and all before it."""
        at: Node | None = node
        while at is not None:
            at.references -= 1
            if not at.references:
                self._n_kept -= 1
                self._rest(at)
            at = at.parent

    def take(self, n: int) -> list[int] | None:
        """`n` pages for completions' own tokens, or none where there is not enough room."""
        pages = self._pages(n)
        self._n_own += len(pages or ())
        return pages

    def give(self, pages: Sequence[int]) -> None:
        """Own pages back."""
        self._free.extend(pages)
        self._n_own -= len(pages)

    def _pages(self, n: int) -> list[int] | None:
        while len(self._free) < n and self._idle:
            self._evict()
        if len(self._free) < n:
            return None
        pages: list[int] = []
        for _ in range(n):
            # Memory that was never used is taken only while less is kept in vain than in use.
            n_used = self._n_kept + self._n_own + len(pages)
            n_in_vain = (
                self._n_touched - n_used - (len(self._free) - (self.n_pages - self._n_touched))
            )
            if (
                self._free[-1] >= self._n_touched
                and self._idle
                and n_in_vain > max(n_used, _KEPT_PAGES)
            ):
                self._evict()
            pages.append(self._free.pop())
            self._n_touched = max(self._n_touched, pages[-1] + 1)
        return pages

    def _evict(self) -> None:
        node, _ = self._idle.popitem(last=False)
        parent = node.parent
        assert parent is not None
        del parent.children[node.tokens]
        self._free.append(node.pages[-1])
        self._rest(parent)

    def _rest(self, node: Node) -> None:
        """Offer a node that nobody uses and nothing follows for eviction."""
        if not node.references and not node.children and node is not self._root:
            self._idle[node] = None
