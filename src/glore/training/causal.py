"""Fine-tune a causal language model: students (method 1) and refiners (method 4)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glore.config import TrainSettings
from glore.models import load_causal_lm, load_tokenizer, prepare_tokenizer, save_model
from glore.progress import Progress
from glore.training.card import model_card
from glore.training.distributed import is_first, wait_for_all, whole_folder
from glore.training.examples import LMExample, TrainReport, lm_rows
from glore.training.fit import fit, seed_all
from glore.training.job import Job, launched
from glore.training.lora import merge_lora, wrap_lora

__all__ = ["train_causal_lm"]


def train_causal_lm(
    base: str | Path,
    examples: Iterable[LMExample],
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
    """Fine-tune `base` on `examples` and save it to `out_dir` (loads with AutoModelForCausalLM and AutoTokenizer).

    Loss on targets and their end-of-text token. Resumes from `work_dir` after a kill where `settings.save_steps` is set.
    `launch`: a command that starts it on several devices (`glore.training.job`), else it runs in this process.
    Raises ModelError (base not loadable, nothing to train on, loss not a number), ConfigError (peft missing).
    """
    if launch:
        logs = None if log_dir is None else str(log_dir)
        job = Job("causal", str(base), settings, str(out_dir), seed, str(work_dir), dtype, device, logs)
        return launched(launch, job, examples, progress)
    seed_all(seed)
    tokenizer = load_tokenizer(base)
    model = load_causal_lm(base, dtype)
    bad_id = prepare_tokenizer(tokenizer, model)
    rows, n_dropped = lm_rows(tokenizer, examples, settings.max_length)
    trained = wrap_lora(model, settings.lora, bad_id)
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
        out_dir.name, f"Causal language model, fine-tuned from {base} on prompts and targets (loss on targets).", settings, report, seed
    )
    if is_first():
        whole = whole_folder(work_dir)
        save_model(merge_lora(trained) if whole is None else load_causal_lm(whole, dtype), tokenizer, out_dir, card)
    wait_for_all()
    return report
