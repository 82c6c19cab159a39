"""Small tokenizers with the peculiarities of real families: which token begins and ends a text,
what pads, what the chat template writes. Byte-level, with a few merges: no download.
"""

from __future__ import annotations

import dataclasses
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = (
    "Question: How many apples are in one bag?\nAnswer:\nTogether they picked 12 + 9 = 21 apples.\n"
    "user\nassistant\nmodel\nsystem\nWrite the corrected solution.\n\nDraft:\n#### 7\n"
)
_CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}"
    "{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m['role'] == 'user' or (m['role'] == 'system' and not "
    "loop.first) or m['role'] == 'assistant' %}"
    "{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
_LLAMA3 = (
    "{{- bos_token }}{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set day = '26 Jul 2024' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + day + '\n\n' }}"
    "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] | trim }}"
    "{%- set messages = messages[1:] %}{%- endif %}{{- '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{- m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{%- endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set head = messages[0]['content'] + '\n\n' -%}{%- set messages = messages[1:] -%}"
    "{%- else -%}{%- set head = '' -%}{%- endif -%}"
    "{%- for m in messages -%}{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' + (head if loop.first else '') }}"
    "{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
_ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Family:
    """What is peculiar to the tokenizers of a family."""

    special: tuple[str, ...]
    eos: str
    template: str
    bos: str | None = None
    adds_bos: bool = False
    pad: str | None = None
    words: tuple[str, ...] = ()
    """Added tokens that are not special."""


FAMILIES = {
    "smollm2": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        template=_CHATML,
        bos="<|im_start|>",
        pad="<|im_end|>",
    ),
    "qwen2.5": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        template=_QWEN25,
        pad="<|endoftext|>",
        words=("<tool_call>", "</tool_call>"),
    ),
    "qwen3": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        template=_CHATML,
        pad="<|endoftext|>",
        words=("<think>", "</think>"),
    ),
    "llama3": Family(
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        eos="<|eot_id|>",
        template=_LLAMA3,
        bos="<|begin_of_text|>",
        adds_bos=True,
    ),
    "gemma3": Family(
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        template=_GEMMA3,
        bos="<bos>",
        adds_bos=True,
        pad="<pad>",
    ),
    "zephyr": Family(
        ("<s>", "</s>"), eos="</s>", template=_ZEPHYR, bos="<s>", adds_bos=True, pad="</s>"
    ),
}


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([_TEXT], trainer)
    return tokenizer.to_str()


def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A new tokenizer of that family."""
    family = FAMILIES[name]
    tokenizer = Tokenizer.from_str(_trained())
    tokenizer.add_special_tokens(list(family.special))
    tokenizer.add_tokens(list(family.words))
    return of_family(tokenizer, family)


def of_family(tokenizer: Tokenizer, family: Family) -> PreTrainedTokenizerFast:
    """The tokenizer with the ends, the beginning and the chat template of that family."""
    if family.adds_bos:
        assert family.bos is not None
        bos = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[bos]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=family.eos,
        bos_token=family.bos,
        pad_token=family.pad,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = family.template
    return fast
