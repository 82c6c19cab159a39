"""Ids and score positions as the authors of other reward models compute them: with plain calls of
the tokenizer, and nothing of glore.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

Found = tuple[list[int], list[int]]
"""Ids of a solution, and the positions of its steps' scores."""


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def glore(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    head = list(tokenizer(f"Question: {question}\nAnswer:\n")["input_ids"])
    return _ends(head, [_plain(tokenizer, step + "\n") for step in steps])


def trl(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    """TRL's tokenize_row."""
    prompt = _plain(tokenizer, question)
    if tokenizer.bos_token_id is not None:
        prompt = [tokenizer.bos_token_id, *prompt]
    separator = _plain(tokenizer, "\n")
    completions = [_plain(tokenizer, step) + separator for step in steps]
    labels = chain.from_iterable([[-100] * (len(c) - 1) + [1] for c in completions])
    labels = [-100] * len(prompt) + list(labels)
    ids = prompt + list(chain.from_iterable(completions))
    return ids, [i for i, label in enumerate(labels) if label == 1]


def qwen(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    """The model card of Qwen2.5-Math-PRM."""
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = _plain(tokenizer, text)
    mark = tokenizer.encode("<extra_0>", add_special_tokens=False)[0]
    return ids, [i for i, token in enumerate(ids) if token == mark]


def math_shepherd(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    """The model card of Math-Shepherd; the tag with the space before it, as other tokenizers than
    Llama 2's need.
    """
    text = f"{question} " + "\n".join(f"{step} ки" for step in steps)
    ids = list(tokenizer.encode(text))
    tag = tokenizer.encode(" ки")[-1]
    return ids, [i for i, token in enumerate(ids) if token == tag]


def rlhflow(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    """RLHFlow's prm_evaluate: one conversation a step, read before its last `+`."""
    plus = tokenizer.encode("+")[-1]
    conversation: list[dict[str, str]] = []
    ids: list[int] = []
    places = []
    for k, step in enumerate(steps):
        text = question + " " + step if k == 0 else step
        conversation += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "+"},
        ]
        before = ids
        ids = list(tokenizer.apply_chat_template(conversation, return_dict=False))
        assert ids[: len(before)] == before
        places.append(len(ids) - 2 - ids[::-1].index(plus))
    return ids, places


def skywork(tokenizer: Any, question: str, steps: tuple[str, ...]) -> Found:
    """Skywork's prepare_input, where the tokenizer adds no BOS itself."""
    head = _plain(tokenizer, (tokenizer.bos_token or "") + question + "\n")
    end = _plain(tokenizer, "\n")[-1]
    return _ends(head, [[*_plain(tokenizer, step), end] for step in steps])


def _ends(head: list[int], steps: list[list[int]]) -> Found:
    ids, places = list(head), []
    for step in steps:
        ids += step
        places.append(len(ids) - 1)
    return ids, places


PUBLISHED = {
    "glore": glore,
    "trl": trl,
    "qwen": qwen,
    "math_shepherd": math_shepherd,
    "rlhflow": rlhflow,
    "skywork": skywork,
}
