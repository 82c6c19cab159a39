"""The tree of pages: equal beginnings are one, what is in use stays, what is not makes room."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from glore.engines.local.prefix_tree import PAGE_SIZE, Node, PrefixTree, cut


def test_prompts_are_cut_at_segments_and_at_full_pages() -> None:
    assert cut([[1, 2, 3], [], list(range(PAGE_SIZE + 1))]) == [
        (1, 2, 3),
        tuple(range(PAGE_SIZE)),
        (PAGE_SIZE,),
    ]


def test_equal_beginnings_are_stored_once() -> None:
    tree = PrefixTree(8)
    long, new = tree.acquire([(1, 2), (3,), (4,)]) or (None, [])
    assert long is not None
    assert [n.start for n in new] == [0, 2, 3]
    short, nothing = tree.acquire([(1, 2), (3,)]) or (None, [])
    assert short is long.parent
    assert nothing == []
    other, more = tree.acquire([(1, 2), (5, 6)]) or (None, [])
    assert other is not None
    assert len(more) == 1
    assert other.pages[0] == long.pages[0]
    assert [n.tokens for n in more] == [(5, 6)]
    assert tree.n_available == 8 - 4


def test_the_page_unused_for_longest_makes_room_and_leaves_before_trunks() -> None:
    tree = PrefixTree(4)
    for chunks in ([(1,), (2,)], [(3,)]):
        found = tree.acquire(chunks)
        assert found is not None
        tree.release(found[0])
    kept, _ = tree.acquire([(1,)]) or (None, [])
    assert tree.allocate(2) is not None  # the free page and (1)(2)
    assert tree.acquire([(3,)]) is not None  # still there
    assert tree.allocate(1) is None  # (1) and (3) are in use
    assert kept is not None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("aaartg"), st.lists(st.integers(0, 2), max_size=5), st.integers(0, 4)
        ),
        max_size=40,
    )
)
def test_pages_are_never_given_twice(steps: list[tuple[str, list[int], int]]) -> None:
    tree = PrefixTree(9)
    held: list[Node] = []
    own: list[list[int]] = []
    for what, path, n in steps:
        if what == "a":
            before = tree.n_available
            found = tree.acquire([(x,) for x in path])
            if found is None:
                assert tree.n_available == before
                assert len(path) > before or held
            else:
                assert [m.tokens for m in found[0].chain()] == [(x,) for x in reversed(path)]
                held.append(found[0])
        elif what == "r" and held:
            tree.release(held.pop(n % len(held)))
        elif what == "t":
            room = tree.n_available
            pages = tree.allocate(n)
            assert (pages is None) == (n > room)
            own.append(pages or [])
        elif what == "g" and own:
            tree.free(own.pop())
        in_use = {page for leaf in held for page in leaf.pages}
        taken = [page for pages in own for page in pages]
        assert len(set(taken)) == len(taken)
        assert not in_use & set(taken)
        assert tree.n_available == 9 - len(in_use) - len(taken)


def test_what_nobody_uses_any_more_does_not_fill_the_memory() -> None:
    tree = PrefixTree(10_000)
    highest = 0
    for i in range(3000):
        found = tree.acquire([(i,)])
        assert found is not None
        highest = max(highest, *found[0].pages)
        tree.release(found[0])
    assert 200 < highest < 300
    found = tree.acquire([(2999,)])
    assert found is not None
    assert found[1] == []  # still there
