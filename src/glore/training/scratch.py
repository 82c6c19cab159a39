"""A small base model from nothing: byte-level BPE with single digits, and a small Llama trained on a task's documents.

Digits are tokens, so that arithmetic is done on digits; a space before a digit is a token of its own, so that `12` is
the same two tokens wherever it stands; a newline is one token, so that a step ends in the same token everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from glore.config import ScratchModelSettings
from glore.errors import ConfigError, ModelError
from glore.models import save_model
from glore.progress import Progress
from glore.prompts import BAD_MARK
from glore.training.card import model_card
from glore.training.examples import CHUNK, LMExample, Row, TrainReport, lm_rows
from glore.training.fit import fit, seed_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Document", "train_scratch_base", "train_tokenizer"]

Document = tuple[tuple[str, ...], tuple[str, ...]]
"""Prompt segments and target segments."""
PAD, EOS = "[PAD]", "[EOS]"
TOKENIZER_DOCUMENTS = 8192
"""Documents that the tokenizer is trained on."""
PIECES = r"\n|\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s"
"""What a token may at most span: a newline, one digit, a word or run of signs with the space before it, one space."""


def train_scratch_base(
    documents: Iterator[Document],
    settings: ScratchModelSettings,
    out_dir: Path,
    *,
    seed: int,
    progress: Progress,
    work_dir: Path,
    device: str = "auto",
    log_dir: Path | None = None,
) -> TrainReport:
    """Train tokenizer and model on the first `settings.n_tokens` tokens of `documents`; loss on every token, prompts too.

    Saved to `out_dir` as a Hugging Face folder. Raises ModelError, ConfigError.
    """
    if settings.train.lora is not None:
        raise ConfigError("base.scratch.train.lora: a model trained from nothing has no weights to adapt; set it to null")
    seed_all(seed)
    sample = list(islice(documents, TOKENIZER_DOCUMENTS))
    progress.note(f"train {out_dir.name}: tokenizer from {len(sample)} documents")
    tokenizer = _kept_tokenizer(work_dir / "tokenizer", sample, settings.vocab_size, settings.max_positions)
    rows, n_dropped = _take_rows(tokenizer, _chained(sample, documents), settings)
    model = new_llama(settings, tokenizer)
    report = fit(
        model,
        rows,
        settings.train,
        name=out_dir.name,
        pad_id=int(tokenizer.pad_token_id),
        n_dropped=n_dropped,
        seed=seed,
        progress=progress,
        work_dir=work_dir,
        device=device,
        log_dir=log_dir,
    )
    n_parameters = sum(p.numel() for p in model.parameters())
    what = f"Small Llama ({n_parameters} parameters) trained from nothing on generated documents (loss on every token)."
    save_model(model, tokenizer, out_dir, model_card(out_dir.name, what, settings, report, seed))
    return report


def _chained(first: list[Document], rest: Iterator[Document]) -> Iterator[Document]:
    yield from first
    yield from rest


def _take_rows(tokenizer: PreTrainedTokenizerBase, documents: Iterator[Document], settings: ScratchModelSettings) -> tuple[list[Row], int]:
    """Rows of the first documents that hold `n_tokens` tokens together."""
    rows: list[Row] = []
    n_tokens = n_dropped = 0
    longest = min(settings.train.max_length, settings.max_positions)
    while n_tokens < settings.n_tokens:
        chunk = [LMExample(prompt, target) for prompt, target in islice(documents, CHUNK)]
        if not chunk:
            break
        new, too_long = lm_rows(tokenizer, chunk, longest, loss_on_prompt=True)
        n_dropped += too_long
        if not new and not rows:
            raise ModelError(
                f"the task's base documents are all longer than max_length={longest} tokens; raise base.scratch.train.max_length"
            )
        for row in new:
            if n_tokens >= settings.n_tokens:
                break
            rows.append(row)
            n_tokens += len(row.ids)
    return rows, n_dropped


def _kept_tokenizer(folder: Path, sample: list[Document], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of an earlier, killed attempt in this work folder, or a new one."""
    if not (folder / "done").is_file():
        train_tokenizer(("".join((*prompt, *target)) for prompt, target in sample), vocab_size, max_length).save_pretrained(str(folder))
        (folder / "done").touch()
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def train_tokenizer(texts: Iterator[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens; any Unicode text comes back unchanged from encode and decode."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, EOS, BAD_MARK]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        extra_special_tokens=[BAD_MARK],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def new_llama(settings: ScratchModelSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A Llama with random weights from torch's global generator; input and output embeddings tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.n_layers,
            num_attention_heads=settings.n_heads,
            intermediate_size=settings.intermediate_size,
            max_position_embeddings=settings.max_positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
