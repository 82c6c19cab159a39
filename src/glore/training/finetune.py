"""Fine-tune a pretrained model on examples: language models (students and refiners, methods 1 and
4), step classifiers (ORM, Balanced ORM and SORM, method 2, which differ in their labels only) and
contrastive reward models (App. F).

A step classifier says a class at the last token of each kept step: with a head of two or three
classes, or as a token of the language model (`glore.step_head`). One forward pass
scores every step of a solution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glore.config import TrainSettings
from glore.devices import pick_device
from glore.lora import merge_lora, quantization_options, wrap_lora
from glore.model_cards import model_card
from glore.models import (
    load_causal_lm,
    load_step_model,
    load_tokenizer,
    new_step_model,
    save_model,
)
from glore.step_classes import is_made_here
from glore.step_head import BINARY, StepHead
from glore.step_layouts.parts import StepLayout
from glore.step_layouts.whole_texts import sign_tokens
from glore.tokenization import prepare_tokenizer
from glore.training.distributed import is_first, wait_for_all, whole_folder
from glore.training.examples import (
    LMExample,
    Row,
    StepExample,
    TrainReport,
    lm_rows,
    merged_rows,
    step_rows,
)
from glore.training.fit import fit, seed_all
from glore.training.launch import Example, Kind, launch_training
from glore.training.memory_errors import explain_out_of_memory
from glore.training.pairs import PAIR, PairExample, pair_rows
from glore.training.training_setup import TrainingSetup

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["train_causal_lm", "train_contrastive", "train_step_classifier"]

E = TypeVar("E", bound=Example)
Load = Callable[..., "PreTrainedModel"]
"""Folder or Hub name and dtype → model. `options`: as `glore.models.load_causal_lm`."""


def train_causal_lm(
    base: str | Path, examples: Iterable[LMExample], settings: TrainSettings, setup: TrainingSetup
) -> TrainReport:
    """Fine-tune `base` on `examples` and save it to `setup.out_dir`, for AutoModelForCausalLM and
    AutoTokenizer.

    The loss is on targets and their end-of-text token. With `settings.save_steps`, a killed
    training resumes from `setup.work_dir`. Raises ModelError (base not loadable, nothing to train
    on, out of memory, loss not finite), ConfigError (peft missing).
    """
    what = (
        f"Causal language model, fine-tuned from {base} on prompts and targets (loss on targets)."
    )
    return _trained("causal", lm_rows, base, examples, settings, setup, what)


def train_step_classifier(
    base: str | Path,
    examples: Iterable[StepExample],
    settings: TrainSettings,
    setup: TrainingSetup,
    head: StepHead = BINARY,
    layout: StepLayout | None = None,
) -> TrainReport:
    """Train a step classifier from the causal LM `base` and save it to `setup.out_dir`, for
    AutoModelForTokenClassification, or for AutoModelForCausalLM where it says label tokens.

    `layout`: of another library, where examples are bare questions and steps; none: ours, where
    they are segments. A new head depends on the seed alone. Resumes, launches and raises as
    `train_causal_lm` does, and ModelError for a tokenizer without the label tokens.
    """
    found = list(examples)
    classes = ", ".join(f"{i} {name}" for i, name in head.names.items())
    if head.says_tokens:
        tokens = ", ".join(map(repr, head.texts))
        what = (
            f"Language model that says a label token ({classes}: {tokens}) at the last token of "
            f"each step, started from {base}."
        )
    else:
        what = f"Step classifier ({classes}, at the last token of each step), started from {base}."
    assert head.n_classes == len(BINARY.names) or not any(
        0 < label < 1 for e in found for label in e.labels
    ), "soft labels are of two classes"
    rows_of = partial(step_rows, layout=layout)
    return _trained("steps", rows_of, base, found, settings, setup, what, head, layout)


def train_contrastive(
    base: str | Path, examples: Iterable[PairExample], settings: TrainSettings, setup: TrainingSetup
) -> TrainReport:
    """Train a contrastive reward model (App. F) from the causal LM `base` and save it to
    `setup.out_dir`, as `train_step_classifier` saves a step classifier.

    The loss is −log σ(r_right − r_wrong), r the difference of the logits of good and bad at a
    solution's last token. So the score of its last step, p(good) = σ(r), ranks the solutions of a
    question. A batch has `batch_size` rows, two per pair, and at least one pair. Resumes, launches
    and raises as `train_causal_lm` does.
    """
    what = (
        "Contrastive reward model (0 bad, 1 good, at the last token of the last step), started "
        f"from {base}."
    )
    return _trained("pairs", pair_rows, base, examples, settings, setup, what)


def _trained(
    kind: Kind,
    rows_of: Callable[[PreTrainedTokenizerBase, Iterable[E], int], tuple[list[Row], int]],
    base: str | Path,
    examples: Iterable[E],
    settings: TrainSettings,
    setup: TrainingSetup,
    what: str,
    head: StepHead = BINARY,
    layout: StepLayout | None = None,
) -> TrainReport:
    """Train and save one model, here or with the command `setup.launch`.

    `rows_of`: tokenizer, examples and longest row → rows, and the number left out. `what` describes
    the model in its card.
    """
    if setup.launch:
        return launch_training(kind, base, examples, settings, setup, head, layout)
    with explain_out_of_memory(settings, setup):
        return _trained_here(
            kind,
            lambda tokenizer: rows_of(tokenizer, examples, settings.max_length),
            base,
            settings,
            setup,
            what,
            head,
            layout,
        )


def _trained_here(
    kind: Kind,
    rows_of: Callable[[PreTrainedTokenizerBase], tuple[list[Row], int]],
    base: str | Path,
    settings: TrainSettings,
    setup: TrainingSetup,
    what: str,
    head: StepHead,
    layout: StepLayout | None,
) -> TrainReport:
    is_causal = kind == "causal" or head.says_tokens
    new: Load = load_causal_lm if is_causal else partial(new_step_model, n_classes=head.n_classes)
    load: Load = load_causal_lm if is_causal else load_step_model
    is_paired = kind == "pairs"
    seed_all(setup.seed)
    tokenizer = load_tokenizer(base)
    label_tokens = head.token_ids(tokenizer) if layout is None else ()
    if head.says_tokens and layout is not None:
        label_tokens = sign_tokens(tokenizer, layout.name)[::-1]
    lora = settings.lora
    is_nf4 = lora is not None and lora.base == "nf4"
    options = quantization_options(_place(setup.device)) if is_nf4 else {}
    model = new(base, setup.dtype, options=options)
    bad_id = prepare_tokenizer(tokenizer, model)
    rows, n_dropped = rows_of(tokenizer)
    trained = wrap_lora(model, lora, bad_id, classifier=not is_causal)
    report = fit(
        trained,
        merged_rows(rows, PAIR if is_paired else 1),
        settings,
        setup,
        pad_id=int(tokenizer.pad_token_id),
        n_dropped=n_dropped,
        is_paired=is_paired,
        label_tokens=label_tokens,
    )
    frame = "label_token" if head.says_tokens else "classes_3" if head.n_classes > 2 else kind
    card = model_card(
        *(setup.out_dir.name, what, frame, settings, report, setup.seed, setup.about),
        only_here=is_made_here(model),
    )
    if is_first():
        whole = whole_folder(setup.work_dir)
        out, notes = setup.out_dir, {name: text.encode() for name, text in setup.notes}
        if whole is not None:
            save_model(load(whole, setup.dtype), tokenizer, out, card, notes)
        elif lora is not None and lora.saves_adapter:
            save_model(trained, tokenizer, out, card, notes, adapter_of=base)
        elif is_nf4:
            # Merged into the weights as they are, not into the 4-bit ones.
            adapter = setup.work_dir / "adapter"
            save_model(trained, tokenizer, adapter, card, adapter_of=base)
            del model, trained
            save_model(load(adapter, setup.dtype), tokenizer, out, card, notes)
        else:
            save_model(merge_lora(trained), tokenizer, out, card, notes)
    wait_for_all()
    return report


def _place(device: str) -> str:
    """The device of this process among those of the training."""
    found = pick_device(device)
    return found if found == "cpu" else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
