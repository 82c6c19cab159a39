"""Prompts → token ids, and the special tokens that the method needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glore.errors import ModelError, shown
from glore.prompts import BAD_MARK, ControlText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "PAD_MARK",
    "bos_ids",
    "check_embedded",
    "encode_many",
    "encode_segments",
    "prepare_tokenizer",
    "text_of",
]

PAD_MARK = "[PAD]"


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Make `[BAD]` one special token, add a pad token if there is none, and resize the embeddings
    if the vocabulary has grown. Returns the id of `[BAD]`.

    New rows are the mean of the old ones (no randomness). Idempotent. Raises ModelError.
    """
    import torch

    special = list(tokenizer.all_special_tokens)
    if BAD_MARK not in special:
        tokenizer.add_special_tokens(
            {
                "extra_special_tokens": [
                    *(t for t in getattr(tokenizer, "extra_special_tokens", [])),
                    BAD_MARK,
                ]
            }
        )
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_MARK})
    bad_id = tokenizer.convert_tokens_to_ids(BAD_MARK)
    if tokenizer(BAD_MARK, add_special_tokens=False)["input_ids"] != [bad_id]:
        raise ModelError(
            f"the tokenizer {shown(tokenizer.name_or_path)} does not keep {BAD_MARK} as one token; "
            "use a fast tokenizer (tokenizer.json)"
        )
    n_old = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > n_old:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        heads = {
            id(m): m
            for m in (model.get_input_embeddings(), model.get_output_embeddings())
            if m is not None
        }
        with torch.no_grad():
            for head in heads.values():
                head.weight[n_old:] = head.weight[:n_old].float().mean(dim=0).to(head.weight.dtype)
    model.config.pad_token_id = tokenizer.pad_token_id
    return int(bad_id)


def encode_segments(tokenizer: PreTrainedTokenizerBase, segments: Sequence[str]) -> list[int]:
    """Text segments of a prompt → token ids. Each segment is encoded by itself; BOS comes first if
    the tokenizer adds one and the prompt is no chat, which has its own.

    Only the segment `[BAD]` and what `ControlText` spells become special tokens. Text that merely
    spells one, such as a question with `</s>` in it, stays ordinary text.
    """
    return encode_many(tokenizer, [segments])[0]


def encode_many(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[str]], bos: bool = True
) -> list[list[int]]:
    """Many prompts → token ids of each, as `encode_segments` does, in one call of the tokenizer
    (equal segments are encoded once). `bos=False` leaves BOS out.
    """
    segments = dict.fromkeys(s for p in prompts for s in map(_keyed, p) if s[1])
    controls = [text for is_control, text in segments if is_control]
    texts = [text for is_control, text in segments if not is_control]
    ids = {
        **{(False, text): tokens for text, tokens in _encoded(tokenizer, texts)},
        **{(True, text): tokens for text, tokens in _encoded_control(tokenizer, controls)},
    }
    head = bos_ids(tokenizer) if bos else []
    return [
        [
            *(() if isinstance(next(iter(prompt), ""), ControlText) else head),
            *(token for segment in prompt if segment for token in ids[_keyed(segment)]),
        ]
        for prompt in prompts
    ]


def _keyed(segment: str) -> tuple[bool, str]:
    """A segment of control text is another one than the same text of a question."""
    return isinstance(segment, ControlText), segment


_OPTIONS = {"add_special_tokens": False, "verbose": False}


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> zip[tuple[str, list[int]]]:
    encoded = tokenizer(texts, split_special_tokens=True, **_OPTIONS)["input_ids"] if texts else []
    if BAD_MARK in texts:
        encoded[texts.index(BAD_MARK)] = tokenizer(BAD_MARK, **_OPTIONS)["input_ids"]
    return zip(texts, encoded, strict=True)


def _encoded_control(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> zip[tuple[str, list[int]]]:
    return zip(texts, tokenizer(texts, **_OPTIONS)["input_ids"] if texts else [], strict=True)


def check_embedded(
    tokenizer: PreTrainedTokenizerBase, n_embeddings: int, token_ids: Sequence[int]
) -> None:
    """Refuse tokens for which a model with so many embeddings has none, as where the tokenizer of
    another model lies in its folder. Raises ModelError naming the first of them.
    """
    if max(token_ids, default=0) >= n_embeddings:
        token = next(t for t in token_ids if t >= n_embeddings)
        raise ModelError(
            f"the tokenizer of {shown(str(tokenizer.name_or_path), 300)} writes "
            f"{shown(tokenizer.convert_ids_to_tokens(token), 40)} as token {token}, but the model "
            f"has embeddings of {n_embeddings} tokens; give a model and its own tokenizer"
        )


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The id that the tokenizer puts before a text, if it does."""
    if tokenizer.bos_token_id is None:
        return []
    first = tokenizer("a")["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of drawn tokens, special ones left out."""
    return str(
        tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    )
