"""Pieces of one text → token ids, with the places where step scores are read.

Some reward models were trained on whole texts: the tokenizer saw the separator beside its
neighbours. So the text is encoded as a whole, and places are found by the tokens' offsets. A
separator that the tokenizer merges with its neighbour is refused, since there is then no token at
which the step ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from glore.errors import ModelError, shown
from glore.step_layouts.parts import Parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Piece", "joined_parts", "special_texts"]


class Piece(NamedTuple):
    """A piece of a text."""

    text: str
    is_data: bool = False
    """Of a question or a step: what spells a special token there is ordinary text."""
    ends_part: bool = False
    """The last token of this piece is the last of a part."""
    is_exact: bool = True
    """That token must end where the piece does. Otherwise, one that goes on belongs to the next
    part.
    """
    last_token: frozenset[int] | None = None
    """What that token may be; none: any."""
    next_token: int | None = None
    """What the token after it must be; none: any."""


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that the tokenizer takes for special tokens."""
    added = (t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
    return tuple(dict.fromkeys((*tokenizer.all_special_tokens, *added)))


def joined_parts(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[Sequence[Piece]], bos: Sequence[int] = ()
) -> list[Parts]:
    """The parts of each text. `bos` comes first in every row.

    Data that spells a special token is encoded by itself, all other pieces together with their
    neighbours. Raises ModelError for a tokenizer without offsets, and for a piece that ends inside
    a token or in another token than it may.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer {_name(tokenizer)} gives no offsets, which this layout needs; use a "
            "fast tokenizer (tokenizer.json)"
        )
    special = special_texts(tokenizer)
    return [_parts(tokenizer, pieces, special, bos) for pieces in texts]


def _parts(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Piece],
    special: Sequence[str],
    bos: Sequence[int],
) -> Parts:
    parts: Parts = [list(bos)]
    for group, is_apart in _groups(pieces, special):
        text = "".join(piece.text for piece in group)
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=is_apart,
            verbose=False,
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        done = at = 0
        for piece in group:
            at += len(piece.text)
            if piece.ends_part:
                end = done
                while end < len(ids) and offsets[end][1] <= at:
                    end += 1
                if piece.is_exact:
                    _check_end(tokenizer, piece, ids, offsets, end, at)
                parts[-1].extend(ids[done:end])
                parts.append([])
                done = end
        parts[-1].extend(ids[done:])
    return parts[:-1]


def _groups(pieces: Sequence[Piece], special: Sequence[str]) -> Iterable[tuple[list[Piece], bool]]:
    """Pieces that are encoded together, and whether special tokens are ordinary text in them."""
    group: list[Piece] = []
    for piece in pieces:
        if piece.is_data and any(text in piece.text for text in special):
            if group:
                yield group, False
            yield [piece], True
            group = []
        else:
            group.append(piece)
    if group:
        yield group, False


def _check_end(
    tokenizer: PreTrainedTokenizerBase,
    piece: Piece,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    end: int,
    at: int,
) -> None:
    is_merged = end < len(ids) and offsets[end][0] < at < offsets[end][1]
    is_other = piece.last_token is not None and (not end or ids[end - 1] not in piece.last_token)
    follows = piece.next_token is None or ids[end : end + 1] == [piece.next_token]
    if is_merged or is_other or not follows or not end:
        token = tokenizer.convert_ids_to_tokens(int(ids[min(end, len(ids) - 1)])) if ids else ""
        raise ModelError(
            f"the tokenizer {_name(tokenizer)} merges the end of {shown(piece.text[-20:])} with "
            f"the text beside it (token {shown(str(token))}), so no token ends there; this layout "
            "does not fit the tokenizer: name the layout that the model was trained with"
        )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return shown(str(tokenizer.name_or_path), 300)
