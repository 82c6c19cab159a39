"""Trains a small base model from scratch: a byte-level BPE tokenizer and a small Llama, on a task's
documents.

Each digit is a token, so that arithmetic is done on digits. The first digit of a number includes
the space before it, which keeps rows short. A newline is one token, so that every step ends in the
same token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from glore.config import ScratchModelSettings
from glore.errors import ConfigError, ModelError
from glore.model_cards import model_card
from glore.models import save_model
from glore.prompts import BAD_MARK
from glore.tasks.protocol import Document
from glore.training.examples import Row, TrainReport, document_rows
from glore.training.fit import fit, seed_all
from glore.training.memory_errors import explain_out_of_memory
from glore.training.training_setup import TrainingSetup

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DrawDocument", "train_scratch_base", "train_tokenizer"]

DrawDocument = Callable[[random.Random, float], Document]
"""A task's `base_document`: a document from a generator and the share of training done."""
PAD, EOS = "[PAD]", "[EOS]"
CHUNK = 512
"""Documents encoded together."""
TOKENIZER_DOCUMENTS = 8192
"""Documents that the tokenizer is trained on."""
PIECES = r"\n| ?\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s"
"""What a token may span at most: a newline; one digit, word or run of signs with the space before
it; one space.
"""


def train_scratch_base(
    draw: DrawDocument, settings: ScratchModelSettings, setup: TrainingSetup
) -> TrainReport:
    """Train a tokenizer and a model on `settings.n_tokens` tokens of documents and save them to
    `setup.out_dir`.

    Documents are trained on in the order drawn; the loss is on their pieces to be learnt. The
    training is in float32 and in this process, whatever dtype and launch of `setup` are. Raises
    ModelError, ConfigError.
    """
    if settings.train.lora is not None:
        raise ConfigError(
            "base.scratch.train.lora: a model trained from nothing has no weights to adapt; set "
            "it to null"
        )
    with explain_out_of_memory(settings.train, setup):
        return _trained_base(draw, settings, setup)


def _trained_base(
    draw: DrawDocument, settings: ScratchModelSettings, setup: TrainingSetup
) -> TrainReport:
    seed_all(setup.seed)
    rng = random.Random(setup.seed)
    name = setup.out_dir.name
    sample = [draw(rng, n / TOKENIZER_DOCUMENTS) for n in range(TOKENIZER_DOCUMENTS)]
    setup.progress.note(f"train {name}: tokenizer from {len(sample)} documents")
    tokenizer = _kept_tokenizer(
        setup.work_dir / "tokenizer", sample, settings.vocab_size, settings.max_positions
    )
    rows, n_dropped = _take_rows(tokenizer, draw, rng, settings)
    model = new_llama(settings, tokenizer)
    report = fit(
        model,
        rows,
        settings.train,
        setup,
        pad_id=int(tokenizer.pad_token_id),
        n_dropped=n_dropped,
        in_order=True,
    )
    n_parameters = sum(p.numel() for p in model.parameters())
    what = f"Small Llama ({n_parameters} parameters) trained from nothing on generated documents."
    card = model_card(name, what, "causal", settings, report, setup.seed, setup.about)
    save_model(model, tokenizer, setup.out_dir, card)
    return report


def _take_rows(
    tokenizer: PreTrainedTokenizerBase,
    draw: DrawDocument,
    rng: random.Random,
    settings: ScratchModelSettings,
) -> tuple[list[Row], int]:
    """Rows of documents with `settings.n_tokens` tokens, and the number left out as too long."""
    rows: list[Row] = []
    n_tokens = n_dropped = 0
    longest = min(settings.train.max_length, settings.max_positions)
    while n_tokens < settings.n_tokens:
        # Small chunks: the share of training done, which a curriculum follows, is known after each.
        new, too_long = document_rows(
            tokenizer, [draw(rng, n_tokens / settings.n_tokens) for _ in range(CHUNK)], longest
        )
        n_dropped += too_long
        if not new and not rows:
            raise ModelError(
                f"the task's base documents are all longer than max_length={longest} tokens; raise "
                "base.scratch.train.max_length"
            )
        for row in new:
            if n_tokens >= settings.n_tokens:
                break
            rows.append(row)
            n_tokens += len(row.ids)
    return rows, n_dropped


def _kept_tokenizer(
    folder: Path, sample: list[Document], vocab_size: int, max_length: int
) -> PreTrainedTokenizerBase:
    """The tokenizer that a killed training left in this folder, or a new one."""
    if not (folder / "done").is_file():
        train_tokenizer(
            ("".join(text for text, _ in document) for document in sample), vocab_size, max_length
        ).save_pretrained(str(folder))
        (folder / "done").touch()
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(folder), trust_remote_code=False)


def train_tokenizer(
    texts: Iterator[str], vocab_size: int, max_length: int
) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens.

    Encoding and decoding leaves any Unicode text unchanged.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, EOS, BAD_MARK]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
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


def new_llama(
    settings: ScratchModelSettings, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A Llama with random weights from torch's global generator and untied embeddings.

    Weights start at a standard deviation of 0.1, which suits such a narrow model: with the usual
    0.02 it learnt later here.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.n_layers,
            num_attention_heads=settings.n_heads,
            intermediate_size=settings.intermediate_size,
            max_position_embeddings=settings.max_positions,
            tie_word_embeddings=False,
            initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
