"""The same workloads with a trained model: a run's student, its training questions, and its wrong
samples.

Unlike a random model, it is sure of most tokens and knows when to stop, as in real use.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import peers
from benchmarks.rounds import Contender, race, show
from benchmarks.workloads import Ask, Subject, quantizations
from glore.config import LabelSettings, RunConfig, load_config
from glore.config.engine import Quantization
from glore.engines.local.engine import TorchEngine
from glore.models import load_causal_lm, load_tokenizer
from glore.pipeline.integrity import part_files
from glore.progress import SilentProgress
from glore.prompts import solve_segments
from glore.records import Problem, Solution, read_records
from glore.tasks.open import open_task
from glore.where import verify_prefixes

K = 8
N_DRAFTS, N_QUESTIONS = 48, 8
"""Drafts whose prefixes are rolled out; questions with K = 96 drafts."""
N_LABELLED, N_NAIVE = 400, 8
"""Wrong drafts that are labelled, and those of them that the naive labeller gets."""


@dataclasses.dataclass(frozen=True, slots=True)
class Student:
    """A run's student and its requests."""

    folder: Path
    config: RunConfig
    tokenizer: PreTrainedTokenizerFast
    problems: dict[str, Problem]
    wrong: list[Solution]
    """Wrong samples of training questions, one a question."""

    @classmethod
    def of(cls, run: str) -> Student:
        """The student of a run that has finished its stage `samples`."""
        folder = Path(run)
        problems = {
            p.id: p
            for p in read_records(part_files(folder / "stages" / "problems", "train"), Problem)
        }
        samples = read_records(part_files(folder / "stages" / "samples", "part"), Solution)
        wrong = {
            s.problem_id: s for s in reversed(samples) if s.correct == "wrong" and len(s.steps) > 1
        }
        tokenizer = load_tokenizer(folder / "models" / "student")
        return cls(
            folder,
            load_config(folder / "config.yaml"),
            tokenizer,
            problems,
            [s for s in samples if wrong.get(s.problem_id) is s],
        )

    def model(self, dtype: str = "float32", device: str = "cpu") -> LlamaForCausalLM:
        """The same weights at every call."""
        return load_causal_lm(self.folder / "models" / "student", dtype=dtype, device=device)

    def subject(self) -> Subject:
        """The model with its requests."""
        n_new = self.config.student.max_new_tokens
        drafts = [self._ask(s.problem_id, (), 96, n_new) for s in self.wrong[:N_QUESTIONS]]
        return Subject(
            "a trained student of 1M",
            self.model,
            self.tokenizer,
            self.prefixes(self.wrong[:N_DRAFTS]),
            drafts,
            4,
        )

    def labels_table(self, n_rounds: int) -> None:
        """Drafts labelled per second, as in a run."""
        task = open_task(self.config.task, self.config.seed)
        drafts = self.wrong[:N_LABELLED]
        model, kinds = self.model(), quantizations(self.model())
        engines = {
            kind: TorchEngine.of(self.model(), self.tokenizer, quantization=kind)
            for kind in ("none", *kinds)
        }
        naive = self.prefixes(drafts[:: len(drafts) // N_NAIVE])

        def labelled(kind: Quantization, full: bool) -> float:
            rule = LabelSettings(
                rollouts=K,
                temperature=1.0,
                max_new_tokens=self.config.labels.max_new_tokens,
                full_counts=full,
            )
            verify_prefixes(
                engines[kind], task, self.problems, drafts, rule, seed=0, progress=SilentProgress()
            )
            return len(drafts)

        def one_by_one() -> float:
            peers.generate_one_by_one(model, naive)
            return len(drafts[:: len(drafts) // N_NAIVE])

        others = [
            Contender("glore, full counts", functools.partial(labelled, "none", True)),
            *(
                Contender(
                    f"glore, backward scan, {kind} products",
                    functools.partial(labelled, kind, False),
                )
                for kind in kinds
            ),
            Contender(
                "a labeller as people write it: `generate(num_return_sequences=8)`, prefix by "
                "prefix",
                one_by_one,
            ),
        ]
        lines = race(
            Contender("glore, backward scan", functools.partial(labelled, "none", False)),
            others,
            n_rounds,
        )
        show(
            f"Step labels, a trained student of 1M: {len(drafts)} wrong drafts",
            "drafts labelled per second",
            lines,
        )

    def prefixes(self, drafts: Sequence[Solution]) -> list[Ask]:
        """K rollouts from every prefix of the drafts."""
        n_new = self.config.labels.max_new_tokens
        return [
            self._ask(d.problem_id, d.steps[:i], K, n_new)
            for d in drafts
            for i in range(1, len(d.steps))
        ]

    def _ask(self, problem_id: str, steps: tuple[str, ...], k: int, n_new: int) -> Ask:
        segments = solve_segments(self.problems[problem_id].question, steps)
        ids = [
            i
            for segment in segments
            for i in self.tokenizer(segment, add_special_tokens=False)["input_ids"]
        ]
        return Ask(segments, k, n_new, tuple(ids))
