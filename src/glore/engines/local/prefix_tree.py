"""Which tokens are stored where: a tree of pages that equal prefixes share.

A *page* holds the keys and values of up to PAGE_SIZE consecutive tokens. Prompts lie in a tree of
pages: equal tokens after equal tokens are one node. So a question, the steps of its drafts and
every prefix of them are stored once. The tokens that a completion adds lie in pages of its own. A
segment of a prompt begins a new page, hence prefixes that end between segments share all their
pages. The number of pages is fixed at the start. Pages that are no longer used are kept until their
room is needed; the least recently used one is evicted first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

__all__ = ["PAGE_SIZE", "Chunk", "Node", "PrefixTree", "cut"]

PAGE_SIZE = 16
"""Tokens of a page (forward.c has the same number): one AVX-512 register of float32."""
_KEPT_PAGES = 256
"""Pages that are kept after use in any case."""

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
        """A number for the user of the tree (a step's score)."""

    def chain(self) -> Iterator[Node]:
        """This node and those before it, back to the text's first."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class PrefixTree:
    """Allocates pages 0 … n_pages - 1."""

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
        """Nodes in use, the root among them."""
        self._n_own = 0
        """Pages in use for completions' own tokens."""
        self._n_touched = 0
        """Pages that were ever allocated. New ones are allocated in order, so they are the first.
        """

    @property
    def n_available(self) -> int:
        """Pages that are free or can be evicted."""
        return self.n_pages - self._n_kept + bool(self._root.references) - self._n_own

    def acquire(self, chunks: Sequence[Chunk]) -> tuple[Node, list[Node]] | None:
        """The node at the end of `chunks`, held until `release`, and the nodes that are new.

        The caller must fill the new ones. None where there are too few pages; then nothing has
        changed.
        """
        leaf = self._root
        new: list[Node] = []
        for n, chunk in enumerate(chunks):
            child = leaf.children.get(chunk)
            if child is None:
                # What is there already must not be evicted to make room for the rest.
                self.hold(leaf)
                new = self._grow(leaf, chunks[n:])
                self.release(leaf)
                if not new:
                    return None
                child = new[-1]
                leaf = child
                break
            leaf = child
        self.hold(leaf)
        return leaf, new

    def _grow(self, leaf: Node, chunks: Sequence[Chunk]) -> list[Node]:
        pages = self._allocate(len(chunks))
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

    def hold(self, node: Node) -> None:
        """Keep the node and all before it for one more user."""
        at: Node | None = node
        while at is not None:
            if not at.references:
                self._n_kept += 1
                self._idle.pop(at, None)
            at.references += 1
            at = at.parent

    def release(self, node: Node) -> None:
        """The node and all before it have one user less."""
        at: Node | None = node
        while at is not None:
            at.references -= 1
            if not at.references:
                self._n_kept -= 1
                self._make_evictable(at)
            at = at.parent

    def allocate(self, n: int) -> list[int] | None:
        """`n` pages for completions' own tokens, or none where there are too few."""
        pages = self._allocate(n)
        self._n_own += len(pages or ())
        return pages

    def free(self, pages: Sequence[int]) -> None:
        """Take back pages of completions' own tokens."""
        self._free.extend(pages)
        self._n_own -= len(pages)

    def _allocate(self, n: int) -> list[int] | None:
        while len(self._free) < n and self._idle:
            self._evict()
        if len(self._free) < n:
            return None
        pages: list[int] = []
        for _ in range(n):
            # Memory that was never used is taken only while fewer pages are idle than in use.
            n_used = self._n_kept + self._n_own + len(pages)
            n_freed = len(self._free) - (self.n_pages - self._n_touched)
            n_idle = self._n_touched - n_used - n_freed
            is_untouched = self._free[-1] >= self._n_touched
            if is_untouched and self._idle and n_idle > max(n_used, _KEPT_PAGES):
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
        self._make_evictable(parent)

    def _make_evictable(self, node: Node) -> None:
        """Let a node be evicted if it is not in use and no node follows it."""
        if not node.references and not node.children and node is not self._root:
            self._idle[node] = None
