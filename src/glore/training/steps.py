"""Train a step classifier: ORM, balanced ORM and SORM (method 2). They differ in their labels only.

Two-class token classification at the last token of each kept step; one forward pass scores every step of a solution.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glore.config import TrainSettings
from glore.models import load_step_model, load_tokenizer, new_step_model, prepare_tokenizer, save_model
from glore.progress import Progress
from glore.training.card import model_card
from glore.training.distributed import is_first, wait_for_all, whole_folder
from glore.training.examples import StepExample, TrainReport, step_rows
from glore.training.fit import fit, seed_all
from glore.training.job import Job, launched
from glore.training.lora import merge_lora, wrap_lora

__all__ = ["train_step_classifier"]


def train_step_classifier(
    base: str | Path,
    examples: Iterable[StepExample],
    settings: TrainSettings,
    out_dir: Path,
    *,
    seed: int,
    progress: Progress,
    work_dir: Path,
    dtype: str = "float32",
    device: str = "auto",
    log_dir: Path | None = None,
    launch: str = "",
) -> TrainReport:
    """Train a step classifier with the weights of the causal LM `base`; saved to `out_dir` for plain AutoModelForTokenClassification.

    The new head depends on `seed` alone. Resumes and launches as `train_causal_lm` does. Raises ModelError, ConfigError.
    """
    if launch:
        logs = None if log_dir is None else str(log_dir)
        job = Job("steps", str(base), settings, str(out_dir), seed, str(work_dir), dtype, device, logs)
        return launched(launch, job, examples, progress)
    seed_all(seed)
    tokenizer = load_tokenizer(base)
    model = new_step_model(base, dtype)
    bad_id = prepare_tokenizer(tokenizer, model)
    rows, n_dropped = step_rows(tokenizer, examples, settings.max_length)
    trained = wrap_lora(model, settings.lora, bad_id, classifier=True)
    report = fit(
        trained,
        rows,
        settings,
        name=out_dir.name,
        pad_id=int(tokenizer.pad_token_id),
        n_dropped=n_dropped,
        seed=seed,
        progress=progress,
        work_dir=work_dir,
        device=device,
        log_dir=log_dir,
    )
    card = model_card(
        out_dir.name, f"Step classifier (0 bad, 1 good, at the last token of each step), started from {base}.", settings, report, seed
    )
    if is_first():
        whole = whole_folder(work_dir)
        save_model(merge_lora(trained) if whole is None else load_step_model(whole, dtype), tokenizer, out_dir, card)
    wait_for_all()
    return report
