"""Fine-tuning on a GPU: tokens per second and peak memory, ours against TRL's SFTTrainer, on the
same rows, in interleaved rounds.

    python -m benchmarks.gpu_training --out OUT                # on a GPU, about three minutes
    python -m benchmarks.gpu_training --dry --out /tmp/dry     # tiny shapes on a CPU, the same code

Models have random weights in the shapes of SmolLM2-135M and of a Llama of 1.1B. Rows have the
lengths of GSM8K's questions and solutions, with the loss on the solutions. All contenders train
with bfloat16 products, float32 weights and AdamW, read the loss every five steps, and recompute no
activations. The count is tokens of rows, without padding, between the first and the last reading of
the loss, so compilation is not counted. `check` compares gradients of packed rows with those of
rows alone in float32; `profile` counts launches and waits of a step. Results are written after
every section, so an interrupted run leaves the sections before.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from glore.config import TrainSettings
from glore.progress import SilentProgress
from glore.training import packed_attention
from glore.training.examples import IGNORED, Row
from glore.training.fit import fit
from glore.training.packed_attention import NAME, row_bounds, use_attention_without_mask
from glore.training.packing import pack_rows
from glore.training.training_setup import TrainingSetup

CUDA = torch.cuda.is_available()
READ = 5
"""Steps between readings of the loss."""
SHAPES = {
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    | {
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "1.1B": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    }
    | {"vocab_size": 32000, "tie_word_embeddings": False},
    "dry": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    | {"vocab_size": 512, "tie_word_embeddings": True},
}
STEPS = {"135M": 25, "1.1B": 15, "dry": 15}
STEP_TOKENS = {"135M": 16384, "1.1B": 8192, "dry": 1024}
"""Tokens a step; the activations of the larger shape, none recomputed, must fit 78 GiB."""
BEFORE = 2900
"""Tokens a second of fine-tuning the 135M on an H200, 200 steps of 2,100 tokens, before packing."""
Work = Callable[[str, list[Row], int], tuple[float, float]]
"""(shape, rows, tokens a step) → real tokens between readings, and the seconds for them."""


def new_model(shape: str) -> LlamaForCausalLM:
    """Random float32 weights, the same at every call, on the GPU if there is one."""
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        return LlamaForCausalLM(
            LlamaConfig(
                **SHAPES[shape],
                max_position_embeddings=2048,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        )


def gsm8k_like(n: int, vocabulary: int) -> list[Row]:
    """Questions of about 60 tokens and solutions of about 110, as long-tailed as GSM8K's."""
    rng = np.random.default_rng(0)
    questions = np.clip(rng.lognormal(np.log(57), 0.4, n), 16, 240).astype(int)
    solutions = np.clip(rng.lognormal(np.log(100), 0.5, n), 16, 480).astype(int)
    rows = []
    for question, solution in zip(questions, solutions, strict=True):
        ids = rng.integers(3, vocabulary, question + solution).astype(np.int32)
        targets = np.append(ids[1:], IGNORED).astype(np.int32)
        targets[: question - 1] = IGNORED
        rows.append(Row(ids, targets))
    return rows


class Clock(SilentProgress):
    """Tokens and times at the readings of the loss."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """The loss was read, so the device has caught up."""
        self.tokens.append(tokens)
        self.times.append(time.perf_counter())

    def measured(self) -> tuple[float, float]:
        return float(sum(self.tokens[1:])), self.times[-1] - self.times[0]


def ours(**changes: Any) -> Work:
    """Our trainer. `tokens` in `changes`: another size of a step."""

    def work(shape: str, rows: list[Row], step_tokens: int) -> tuple[float, float]:
        clock = Clock()
        sizes = {
            "batch_tokens": changes.get("tokens", step_tokens),
            "max_length": 768,
            "max_steps": STEPS[shape],
            "log_steps": READ,
        }
        asked = (
            sizes
            | {"bf16": True, "learning_rate": 1e-5}
            | {k: v for k, v in changes.items() if k != "tokens"}
        )
        with tempfile.TemporaryDirectory() as folder:
            setup = TrainingSetup(
                out_dir=Path(folder) / "x", work_dir=Path(folder), seed=0, progress=clock
            )
            fit(
                new_model(shape),
                rows,
                TrainSettings.model_validate(asked),
                setup,
                pad_id=0,
                n_dropped=0,
            )
        return clock.measured()

    return work


class Readings(TrainerCallback):
    """The clock of a transformers or TRL trainer; its collator counts tokens."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.marks: list[tuple[int, float]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """The loss was read."""
        if "loss" in (logs or {}):
            self.marks.append(
                (state.global_step * args.gradient_accumulation_steps, time.perf_counter())
            )

    def measured(self) -> tuple[float, float]:
        (first, start), (last, end) = self.marks[0], self.marks[-1]
        return float(sum(self.counts[first:last])), end - start


def trl(pieces: int, attention: str, packing: bool = True) -> Work:
    """TRL's SFTTrainer. The tokens of a step are split into `pieces` micro-steps, each packed into
    one row or padded.
    """

    def work(shape: str, rows: list[Row], step_tokens: int) -> tuple[float, float]:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        readings = Readings()
        data = Dataset.from_dict(
            {
                "input_ids": [row.ids.tolist() for row in rows],
                "completion_mask": [[0, *(row.targets[:-1] != IGNORED)] for row in rows],
            }
        )
        average = sum(len(row.ids) for row in rows) / len(rows)
        size = {"per_device_train_batch_size": 1, "max_length": step_tokens // pieces}
        if not packing:
            size = {
                "per_device_train_batch_size": max(1, round(step_tokens / pieces / average)),
                "max_length": 768,
            }
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(
                output_dir=folder,
                **size,
                gradient_accumulation_steps=pieces,
                packing=packing,
                completion_only_loss=True,
                max_steps=STEPS[shape],
                logging_steps=READ,
                learning_rate=1e-5,
                bf16=True,
                use_cpu=not CUDA,
                **{_checkpointing_name(SFTConfig): False},
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            )
            model = new_model(shape)
            _attend(model, attention)
            trainer = SFTTrainer(
                model,
                config,
                train_dataset=data,
                processing_class=_tokenizer(),
                callbacks=[readings],
            )
            _count(trainer, readings)
            trainer.train()
        return readings.measured()

    return work


def hf(pieces: int, attention: str) -> Work:
    """The contender if TRL is missing: transformers' Trainer over flattened rows
    (`DataCollatorWithFlattening`); no row is cut.
    """

    def work(shape: str, rows: list[Row], step_tokens: int) -> tuple[float, float]:
        from transformers import DataCollatorWithFlattening

        readings = Readings()
        shifted = [[IGNORED, *row.targets[:-1].tolist()] for row in rows]
        data = [
            {"input_ids": row.ids.tolist(), "labels": labels}
            for row, labels in zip(rows, shifted, strict=True)
        ]
        average = sum(len(row.ids) for row in rows) / len(rows)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=max(1, round(step_tokens / pieces / average)),
                gradient_accumulation_steps=pieces,
                max_steps=STEPS[shape],
                logging_steps=READ,
                learning_rate=1e-5,
                bf16=True,
                use_cpu=not CUDA,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                seed=0,
            )
            model = new_model(shape)
            _attend(model, attention)
            model.config.use_cache = False
            collator = DataCollatorWithFlattening(return_flash_attn_kwargs=attention == NAME)
            trainer = Trainer(
                model, arguments, train_dataset=data, data_collator=collator, callbacks=[readings]
            )
            _count(trainer, readings)
            trainer.train()
        return readings.measured()

    return work


def _attend(model: LlamaForCausalLM, attention: str) -> None:
    if attention == NAME:
        use_attention_without_mask(model)
    else:
        model.set_attn_implementation(attention)


def _masked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scale: float | None,
) -> torch.Tensor:
    """The variable-length kernel's result with a mask, for the dry run: the kernel needs a GPU."""
    at = torch.arange(len(query))
    row = torch.searchsorted(bounds.long(), at, right=True)
    heads = (x.transpose(0, 1)[None] for x in (query, key, value))
    mask = (row[:, None] == row) & (at[:, None] >= at)
    return torch.nn.functional.scaled_dot_product_attention(
        *heads, attn_mask=mask, scale=scale, enable_gqa=True
    )[0].transpose(0, 1)


def _count(trainer: Trainer, readings: Readings) -> None:
    collate = trainer.data_collator

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        mask = batch.get("attention_mask")
        readings.counts.append(int(batch["input_ids"].numel() if mask is None else mask.sum()))
        return batch

    trainer.data_collator = counted


def _checkpointing_name(config: Any) -> str:
    return next(
        n
        for n in ("activation_checkpointing", "gradient_checkpointing")
        if n in config.__dataclass_fields__
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<eos>")),
        pad_token="<pad>",
        eos_token="<eos>",
    )


CONTENDERS: dict[str, Work] = {
    "ours, packed, compiled": ours(compile=True),
    "ours, packed": ours(),
    "ours, padded": ours(batch_tokens=0, batch_size=96),
    "ours, steps of 2,100 tokens, each read": ours(tokens=2100, log_steps=1),
    "TRL, packing, flash attention": trl(1, NAME),
    "TRL, packing, sdpa, 4 micro-steps": trl(4, "sdpa"),
    "TRL, packing, flex attention": trl(1, "flex_attention"),
    "TRL, padded": trl(1, "sdpa", packing=False),
    "Trainer, flattened, flash attention": hf(1, NAME),
}
"""The first is what the others are measured against; TRL's flash attention is torch's
variable-length kernel, through our adapter.
"""
LARGE = (
    "ours, packed, compiled",
    "ours, packed",
    "TRL, packing, flash attention",
    "Trainer, flattened, flash attention",
)
"""Of the large shape: what takes part where nobody is asked for."""


def race(
    shape: str,
    names: list[str],
    rounds: int,
    step_tokens: int,
    deadline: float,
    write: Callable[[Any], None],
) -> dict[str, Any]:
    """Rounds in turn until `rounds` or the deadline. A contender that fails is out, with its
    reason.
    """
    rows = gsm8k_like(400 if shape == "dry" else 3000, int(SHAPES[shape]["vocab_size"]))
    rates: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    failed: dict[str, str] = {}
    result = {
        "rows": len(rows),
        "step_tokens": step_tokens,
        "rates": rates,
        "peak_GiB": peaks,
        "failed": failed,
    }
    for n in range(rounds):
        for name in names:
            if name in failed or (n and time.monotonic() > deadline):
                continue
            gc.collect()
            if CUDA:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            try:
                tokens, seconds = CONTENDERS[name](shape, rows, step_tokens)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"[:300]
                traceback.print_exc()
                continue
            rates[name].append(tokens / seconds)
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
            print(
                f"{shape} round {n} {name}: {tokens / seconds:,.0f} tok/s, whole "
                f"{time.perf_counter() - began:.1f} s",
                flush=True,
            )
            write(result)
    return result


def check(shape: str) -> dict[str, Any]:
    """Loss and gradients of packed rows in bfloat16 against rows alone in float32. Without packing:
    the error of bfloat16 alone.
    """
    rows = gsm8k_like(24, int(SHAPES[shape]["vocab_size"]))
    longest = max(len(row.ids) for row in rows)
    device = "cuda" if CUDA else "cpu"

    def gradients(packed: bool, bf16: bool) -> tuple[float, list[torch.Tensor]]:
        model = new_model(shape)
        total = 0.0
        if packed and CUDA:
            use_attention_without_mask(model)
        for batch in [rows] if packed else [[row] for row in rows]:
            arrays = pack_rows(
                batch, 0, longest, 0 if not packed else sum(len(r.ids) for r in batch) + longest
            )
            ids, targets, positions, bounds = (torch.from_numpy(a).to(device) for a in arrays)
            extra = {"position_ids": positions, **row_bounds(bounds, longest)} if packed else {}
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits = model(input_ids=ids, use_cache=False, **extra).logits
            loss = torch.nn.functional.cross_entropy(
                logits[0].float(), targets[0].long(), ignore_index=IGNORED, reduction="sum"
            ) / len(rows)
            loss.backward()
            total += loss.item()
        return total, [p.grad.cpu() for p in model.parameters() if p.grad is not None]

    loss, reference = gradients(False, False)
    out: dict[str, Any] = {"loss, rows alone, float32": loss}
    for name, packed in (("rows alone, bf16", False), ("packed, bf16", True)):
        value, grads = gradients(packed, True)
        difference = sum(
            float((g - r).double().square().sum()) for g, r in zip(grads, reference, strict=True)
        )
        out[f"loss, {name}"] = value
        out[f"gradient error, {name}"] = (
            difference / sum(float(r.double().square().sum()) for r in reference)
        ) ** 0.5
    out["equal"] = (
        out["gradient error, packed, bf16"] < 1.5 * out["gradient error, rows alone, bf16"] + 1e-3
    )
    return out


def profile(shape: str, names: list[str], step_tokens: int) -> dict[str, Any]:
    """Launches, copies and waits of a step, from the profiler's events of one short training."""
    rows = gsm8k_like(400 if shape == "dry" else 3000, int(SHAPES[shape]["vocab_size"]))
    activity = torch.profiler.ProfilerActivity.CUDA if CUDA else torch.profiler.ProfilerActivity.CPU
    wanted = (
        "LaunchKernel",
        "MemcpyAsync",
        "StreamSynchronize",
        "DeviceSynchronize",
        "EventSynchronize",
        "aten::_local_scalar_dense",
    )
    out: dict[str, Any] = {}
    for name in names:
        try:
            if "compiled" in name:
                CONTENDERS[name](shape, rows, step_tokens)  # compiles
            with torch.profiler.profile(activities=[activity]) as seen:
                CONTENDERS[name](shape, rows, step_tokens)
        except Exception as error:
            out[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        counts = {
            w: sum(e.count for e in seen.key_averages() if w in e.key) / STEPS[shape]
            for w in wanted
        }
        out[name] = {key: round(value, 2) for key, value in counts.items() if value}
    return out


def table(races: dict[str, Any]) -> str:
    """Medians, ratios within rounds, peak memory."""
    lines = []
    for shape, result in races.items():
        base = result["rates"].get("ours, packed, compiled") or next(iter(result["rates"].values()))
        lines += [
            f"| {shape}, {result['step_tokens']:,} tokens a step | tokens/s | ours over it | peak "
            "GiB |",
            "|---|---|---|---|",
        ]
        for name, rates in result["rates"].items():
            if name in result["failed"] or not rates:
                lines.append(f"| {name} | – | {result['failed'].get(name, 'no time left')} | – |")
                continue
            ratio = (
                statistics.median([a / b for a, b in zip(base, rates, strict=False)])
                if base
                else float("nan")
            )
            lines.append(
                f"| {name} | {statistics.median(rates):,.0f} ({len(rates)} rounds) | {ratio:.2f} | "
                f"{result['peak_GiB'][name]:.1f} |"
            )
        if shape == "135M" and base:
            lines.append(
                f"\nOver {BEFORE:,} tokens/s, measured before packing: "
                f"{statistics.median(base) / BEFORE:.0f} times."
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for gpu_training.md and gpu_training.json"
    )
    parser.add_argument("--sizes", nargs="+", choices=[*SHAPES], default=["135M", "1.1B"])
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=["check", "race", "profile"],
        default=["check", "race", "profile"],
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="contenders whose name holds one of these"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--step-tokens", type=int, default=0, help="0: as the shape's activations allow"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=170,
        help="no round but each size's first begins later than this",
    )
    parser.add_argument("--dry", action="store_true", help="tiny shapes, for a CPU")
    asked = parser.parse_args()
    sizes = ["dry"] if asked.dry else asked.sizes
    if asked.dry and not CUDA:
        packed_attention.varlen = _masked
    logging.getLogger("transformers").setLevel(logging.ERROR)
    asked.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + asked.seconds
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if CUDA else "none (CPU, dry)",
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": sys.version.split()[0],
        },
        "races": {},
    }

    def write(_: Any = None) -> None:
        (asked.out / "gpu_training.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        text = [f"Card: {report['card']}; {report['versions']}", "", table(report["races"])]
        text += [
            f"{key}: {json.dumps(value)}"
            for key, value in report.items()
            if key.startswith(("check", "profile"))
        ]
        (asked.out / "gpu_training.md").write_text("\n".join(text) + "\n", encoding="utf-8")

    def section(key: str, work: Callable[[], Any]) -> None:
        try:
            report[key] = work()
        except Exception as error:
            traceback.print_exc()
            report[key] = f"failed: {type(error).__name__}: {error}"[:500]
        write()

    def tokens_of(size: str) -> int:
        return asked.step_tokens or STEP_TOKENS[size]

    def chosen(size: str) -> list[str]:
        return [
            n
            for n in (LARGE if size == "1.1B" and not asked.only else CONTENDERS)
            if not asked.only or any(o in n for o in asked.only)
        ]

    for size in sizes:
        if "check" in asked.sections and size != "1.1B":
            section(f"check {size}", lambda size=size: check(size))
        if "race" in asked.sections:

            def one(size: str = size) -> str:
                def keep(result: Any) -> None:
                    report["races"][size] = result
                    write()

                share = deadline - (deadline - time.monotonic()) * (
                    0.4 if size == "135M" and len(sizes) > 1 else 0
                )
                keep(
                    race(
                        size,
                        chosen(size),
                        1 if asked.dry else asked.rounds,
                        tokens_of(size),
                        share,
                        keep,
                    )
                )
                return "done"

            section(f"race {size}", one)
        if "profile" in asked.sections and size != "1.1B":
            names = [
                n
                for n in chosen(size)
                if n.startswith(("ours, packed", "ours, steps", "TRL, packing, flash"))
            ]
            section(
                f"profile {size}",
                lambda size=size, names=names: profile(size, names, tokens_of(size)),
            )
    print((asked.out / "gpu_training.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
