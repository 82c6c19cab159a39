"""Cost of labelling GSM8K at 7B and 13B: tokens and GPU-hours of the two sampling parts, from
stated assumptions.

    python benchmarks/cost_model.py [--gpu h100|a100] [--questions N] [--samples K] [--drafts D]
    [--rollouts K]

Nothing is measured here. Counts follow the method: K samples per question; verifying rollouts of D
drafts per question, either all K at each of the L - 1 prefixes (full counts) or by the exact
backward scan, whose expectation is `glore.where.scan.expected_rollouts`. Times are a roofline: a
decoding step takes the larger of two times, for reading weights and cache and for arithmetic,
divided by `EFFICIENCY`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence

from glore.where.scan import WAVES

EFFICIENCY = 0.5
"""Share of the roofline that a good engine reaches (assumed)."""
MOST_ROWS = 256
MEMORY_SHARE = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """Numbers from a data sheet."""

    name: str
    bytes_per_second: float
    flops: float
    """bf16, dense."""
    memory: float


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """A Llama-2-like model in bf16, and how well its student solves GSM8K."""

    name: str
    n_weights: float
    cache_bytes: float
    """Per token: 2 · layers · heads · 128 · 2 bytes."""
    accuracy: float
    """The paper's greedy accuracy after expert iteration (Table 5)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """Sizes of GSM8K: 235 characters a question, 287 a solution of 4.6 lines on average, at about 3
    characters a token.
    """

    questions: int = 7473
    prompt_tokens: int = 80
    steps: int = 5
    """L, the answer line included."""
    step_tokens: int = 20
    p_before_error: float = 0.3
    """Chance that a rollout from a right prefix of a wrong draft succeeds."""
    p_after_error: float = 0.02
    """The same from a prefix with the first error (by luck, or by correcting the error)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Tokens that one part of the method samples."""

    name: str
    completions: float
    drawn: float
    """Tokens of completions."""
    read_alone: float
    """Prompt tokens where every completion is a prompt of its own."""
    read_shared: float
    """The same where each token of a question's tree is read once."""


GPUS = {
    "h100": Gpu("H100 SXM", 3.35e12, 989e12, 80e9),
    "a100": Gpu("A100 80 GB", 2.04e12, 312e12, 80e9),
}
MODELS = (
    Model("7B", 6.7e9, 2 * 32 * 32 * 128 * 2, 0.485),
    Model("13B", 13.0e9, 2 * 40 * 40 * 128 * 2, 0.53),
)


def samples(task: Task, k: int) -> Work:
    """K solutions of every question."""
    n = task.questions * k
    return Work(
        f"samples, K = {k}",
        n,
        n * task.steps * task.step_tokens,
        n * task.prompt_tokens,
        task.questions * task.prompt_tokens,
    )


def full_counts(task: Task, drafts: int, k: int) -> Work:
    """All K rollouts at every prefix of every draft: K (L - 1) per draft."""
    return _rollouts(
        f"rollouts, K = {k}, full counts", task, drafts, [float(k)] * (task.steps - 1), 1.0
    )


def lazy_scan(
    task: Task, drafts: int, k: int, accuracy: float, waves: Sequence[int] = WAVES
) -> Work:
    """The backward scan: only wrong drafts, from the last prefix to the first success, in waves.
    First errors are equally likely at each step.
    """
    drawn = [0.0] * (task.steps - 1)
    for error in range(task.steps):
        p = [
            task.p_before_error if i <= error else task.p_after_error for i in range(1, task.steps)
        ]
        for i, n in enumerate(scanned(p, k, waves)):
            drawn[i] += (1 - accuracy) / task.steps * n
    return _rollouts(f"rollouts, K = {k}, backward scan", task, drafts, drawn, 1 - accuracy)


def scanned(p: Sequence[float], k: int, waves: Sequence[int]) -> list[float]:
    """Expected number of rollouts at each prefix of one wrong draft. `p[i - 1]`: success rate at
    P_i.
    """
    ends = sorted({*(min(k, end) for end in itertools.accumulate(waves)), k})
    drawn, reach = [0.0] * len(p), 1.0
    for i in reversed(range(len(p))):
        drawn[i] = reach * sum(
            (end - begin) * (1 - p[i]) ** begin for begin, end in itertools.pairwise([0, *ends])
        )
        reach *= (1 - p[i]) ** k
    return drawn


def gpu_hours(work: Work, task: Task, model: Model, gpu: Gpu, shared: bool) -> float:
    """Hours of one GPU: decoding at the largest batch that fits, and reading the prompts."""
    tokens_per_row = (work.read_alone + work.drawn / 2) / work.completions
    weights = 2 * model.n_weights
    rows = min(
        MOST_ROWS, (MEMORY_SHARE * gpu.memory - weights) / (model.cache_bytes * tokens_per_row)
    )
    moved = (weights + rows * tokens_per_row * model.cache_bytes) / gpu.bytes_per_second
    computed = 2 * model.n_weights * rows / gpu.flops
    decoding = work.drawn / rows * max(moved, computed)
    reading = 2 * model.n_weights * (work.read_shared if shared else work.read_alone) / gpu.flops
    return (decoding + reading) / EFFICIENCY / 3600


def table(gpu: Gpu, task: Task, k: int, drafts: int, rollouts: int) -> str:
    """All parts for both models, as Markdown."""
    lines = [
        "| model | part | completions, M | tokens drawn, M | prompt tokens, M: alone / shared | "
        f"{gpu.name} hours: alone / shared |",
        "|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        for work in (
            samples(task, k),
            full_counts(task, drafts, rollouts),
            lazy_scan(task, drafts, rollouts, model.accuracy),
        ):
            hours = " / ".join(
                f"{gpu_hours(work, task, model, gpu, shared):.1f}" for shared in (False, True)
            )
            lines.append(
                f"| {model.name} | {work.name} | {work.completions / 1e6:.2f} | "
                f"{work.drawn / 1e6:.0f} | {work.read_alone / 1e6:.0f} / "
                f"{work.read_shared / 1e6:.1f} | {hours} |"
            )
    return "\n".join(lines)


def _rollouts(name: str, task: Task, drafts: int, at_prefix: Sequence[float], read: float) -> Work:
    """Work of rollouts. Those from P_i have the L - i remaining steps, and read the question and i
    steps. `read`: share of drafts that are tried.
    """
    n_drafts = task.questions * drafts
    left = [task.step_tokens * (task.steps - i) for i in range(1, task.steps)]
    before = [task.prompt_tokens + task.step_tokens * i for i in range(1, task.steps)]
    return Work(
        name,
        n_drafts * sum(at_prefix),
        n_drafts * sum(n * tokens for n, tokens in zip(at_prefix, left, strict=True)),
        n_drafts * sum(n * tokens for n, tokens in zip(at_prefix, before, strict=True)),
        task.questions * task.prompt_tokens + n_drafts * task.step_tokens * (task.steps - 1) * read,
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 needed, got {text!r}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100")
    parser.add_argument("--questions", type=_count, default=Task().questions)
    parser.add_argument("--samples", type=_count, default=96, help="K of the samples")
    parser.add_argument("--drafts", type=_count, default=8, help="labelled drafts a question")
    parser.add_argument("--rollouts", type=_count, default=8, help="K of the verifying rollouts")
    arguments = parser.parse_args()
    task = Task(questions=arguments.questions)
    print(table(GPUS[arguments.gpu], task, arguments.samples, arguments.drafts, arguments.rollouts))


if __name__ == "__main__":
    main()
