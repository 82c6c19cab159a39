"""Small tokenizers that merge what real families merge at the ends of steps: `.\\n`, `\\n\\n`,
` ки`. Trained here: no download.
"""

from __future__ import annotations

from functools import cache

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from support.chat_tokenizers import FAMILIES as CHAT
from support.chat_tokenizers import of_family

_TEXT = [
    "Step 1: Ann has 3 + 4 = 7 apples. ки\nStep 2: Bob has 7 - 2 = 5 apples. ки\n",
    "How many apples do they have?\n\nThey have 12 + -5 apples.\n\nThe answer is: 5. ки\n",
    "Ann has 7 apples.\nBob has 5 apples.\nThey have 12 apples.\n",
    "user\nassistant\nsystem\nPlease reason step by step + - + -\n\n+\n- .\n\n",
] * 50
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 and Qwen cut text: newlines go with the signs before them."""
NAMES = ("llama3", "qwen", "gemma", "smollm2", "mistral")


@cache
def _trained(name: str) -> str:
    tokenizer = Tokenizer(models.BPE(byte_fallback=name in ("gemma", "mistral")))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special: list[str] = []
    if name in ("gemma", "mistral"):
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        if name == "mistral":
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n+|▁?[^▁\n]+|▁"), "isolated")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet = [chr(c) for c in range(33, 127)] + ["▁", "\n"]
        special = [f"<0x{n:02X}>" for n in range(256)]
    else:
        cuts = [
            pre_tokenizers.Digits(individual_digits=True)
            if name == "smollm2"
            else pre_tokenizers.Split(Regex(_GPT4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name == "smollm2"),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=name == "smollm2")
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return tokenizer.to_str()


def step_tokenizer(name: str, more_special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A new tokenizer in the manner of that family, with its chat template."""
    family = CHAT[{"qwen": "qwen3", "gemma": "gemma3", "mistral": "zephyr"}.get(name, name)]
    tokenizer = Tokenizer.from_str(_trained(name))
    tokenizer.add_special_tokens([*family.special, *more_special])
    return of_family(tokenizer, family)
