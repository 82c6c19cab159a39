"""The texts of drawn tokens: joined, they are the completion's text, whatever tokens are."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from glore.serve.drawn_tokens import token_ends

PIECES = (b"a", b"b\n", " é".encode(), *(bytes([b]) for b in "\N{GRINNING FACE}\xe9".encode()), b"")
"""Letters, a line's end, single bytes of characters, and a special token, which has no text."""
Ids = st.lists(st.integers(0, len(PIECES) - 1), max_size=12)


def by_bytes(ids: Sequence[int]) -> str:
    return b"".join(PIECES[i] for i in ids).decode(errors="replace")


def without_first_space(ids: Sequence[int]) -> str:
    """As sentencepiece decodes: a text loses the space at its beginning."""
    return by_bytes(ids).removeprefix(" ")


def of_pairs(ids: Sequence[int]) -> str:
    """A decoder in which a token changes the text before it: every `aa` is one `A`."""
    return by_bytes(ids).replace("aa", "A")


@given(Ids, st.integers(0, 30), st.sampled_from([by_bytes, without_first_space, of_pairs]))
def test_every_character_is_that_of_one_token(ids: list[int], n_shown: int, decode: object) -> None:
    assert callable(decode)
    whole = decode(ids)
    text = whole[:n_shown]  # what a stop has left of it
    ends = token_ends(decode, ids, text)
    assert len(ends) == len(ids)
    assert ends == sorted(ends)
    assert (ends[-1] if ends else 0) == (len(text) if ids else 0)
    if decode is of_pairs:
        return
    for n, end in enumerate(ends[:-1], start=1):
        # What a token has is there once it is drawn, and stays: no half of a character.
        assert all(decode([*ids[:n], *more]).startswith(text[:end]) for more in ((), (0,), (2,)))


def test_the_token_that_ends_a_character_has_it() -> None:
    face = [3, 4, 5, 6]
    assert token_ends(by_bytes, [0, *face, 0, 9], "a\N{GRINNING FACE}a") == [1, 1, 1, 1, 2, 3, 3]
    assert token_ends(by_bytes, [0, 3, 4], by_bytes([0, 3, 4])) == [1, 1, len(by_bytes([0, 3, 4]))]
    assert token_ends(by_bytes, [0, 1, 0], "a") == [1, 1, 1]
    assert token_ends(by_bytes, [], "") == []


def test_a_long_text_needs_few_looks() -> None:
    looks: list[int] = []

    def counted(ids: Sequence[int]) -> str:
        looks.append(len(ids))
        return by_bytes(ids)

    ids = [0, 1, 2] * 200
    assert token_ends(counted, ids, by_bytes(ids))[-1] == len(by_bytes(ids))
    assert max(looks) <= 3
