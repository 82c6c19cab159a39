"""Step scores from a reward model: the probability of "good" after every step, all steps of a
solution in one forward pass.

Method 2: two-class token classification read at the last token of each step. Solutions lie in a
prefix tree (`glore.engines.local.prefix_tree`): the tokens of a question, and of the steps that
several of its solutions begin with, are computed once. A score in company equals a single one up to
rounding. Axes: B solutions, T tokens, C classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.engines.local.attention import KeyValues
from glore.engines.local.batch import prompt_batches
from glore.engines.local.prefix_tree import PAGE_SIZE, Node, PageTree, cut
from glore.engines.local.runner import WAYS, ModelRunner
from glore.engines.protocol import check_scores
from glore.errors import EngineError, out_of_memory
from glore.prompts import solve_segments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import EngineSettings
    from glore.engines.local.cuda.pages import CudaPages

__all__ = ["StepScorer"]

_GOOD = 1
_log = logging.getLogger(__name__)


class StepScorer:
    """Scores solutions with a token-classification model (`AutoModelForTokenClassification`, labels
    0 = bad, 1 = good).
    """

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        from glore.models import load_step_model, load_tokenizer, pick_device

        tokenizer = load_tokenizer(str(model_path))
        model = load_step_model(
            str(model_path), dtype=settings.dtype, device=str(pick_device(settings.device))
        )
        self._set_up(model, tokenizer, settings.scoring_tokens)
        self.name = str(model_path)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scoring_tokens: int = 16384,
        ways: tuple[str, ...] = WAYS,
    ) -> StepScorer:
        """A scorer over a model that is loaded already."""
        scorer = cls.__new__(cls)
        scorer._set_up(model, tokenizer, scoring_tokens, ways)
        return scorer

    def _set_up(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scoring_tokens: int,
        ways: tuple[str, ...] = WAYS,
    ) -> None:
        self.model = model.eval()
        self.name = type(model).__name__
        """What errors call it."""
        self.tokenizer = tokenizer
        self.scoring_tokens = scoring_tokens
        self._runner = ModelRunner(self.model, ways)
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def way(self) -> str:
        """How the model is read (`glore.engines.local.runner`)."""
        return self._runner.way

    def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        """For each (question, steps): p(good) after each step, in the order given. No steps: an
        empty tuple.

        When memory runs out, the rest is scored with half as many tokens at a time, and so is all
        that comes later. Raises EngineError when a solution does not fit into the model's context,
        or not even one into the memory, ModelError when the model gives something else than
        probabilities.
        """
        scores: list[tuple[float, ...]] = [()] * len(items)
        todo = self._encode(
            {
                i: solve_segments(question, steps)
                for i, (question, steps) in enumerate(items)
                if steps
            }
        )
        score = self._in_rows if self._runner.way == "plain" else self._in_a_tree
        while todo:
            try:
                for i, values in score(dict(todo)):
                    check_scores(self.name, items[i][0], values)
                    scores[i] = values
                    del todo[i]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)
        return scores

    def _shrink(self, error: BaseException) -> None:
        """Out of memory: half as many tokens at a time."""
        if self.scoring_tokens <= PAGE_SIZE:
            raise EngineError(
                "not enough memory to score a single solution; use a smaller reward model or "
                "another machine"
            ) from error
        self.scoring_tokens //= 2
        _log.warning("out of memory; going on with %d tokens at a time", self.scoring_tokens)

    def _encode(self, inputs: dict[int, tuple[str, ...]]) -> dict[int, list[list[int]]]:
        """Per solution: token ids of the question and of each step."""
        from glore.models import encode_many

        heads = encode_many(self.tokenizer, [segments[:1] for segments in inputs.values()])
        steps = iter(
            encode_many(
                self.tokenizer,
                [(s,) for segments in inputs.values() for s in segments[1:]],
                bos=False,
            )
        )
        encoded = {}
        for (index, segments), head in zip(inputs.items(), heads, strict=True):
            encoded[index] = [head, *(next(steps) for _ in segments[1:])]
            n_tokens = sum(map(len, encoded[index]))
            if n_tokens > self._context:
                raise EngineError(
                    f"solution {index} of the batch has {n_tokens} tokens with its question and "
                    f"the reward model's context is {self._context}; leave it out, or use a model "
                    "with a longer context"
                )
        return encoded

    def _in_a_tree(
        self, encoded: dict[int, list[list[int]]]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Solutions of one question next to each other; whatever they have in common is computed
        once.
        """
        order = sorted(encoded, key=lambda i: encoded[i])
        longest = max((len(cut(parts)) for parts in encoded.values()), default=0)
        tree = PageTree(max(longest, -(-2 * self.scoring_tokens // PAGE_SIZE)))
        store = self._runner.pages_for(tree.n_pages)
        new: list[Node] = []
        reached: list[tuple[int, Node]] = []
        n_tokens = 0
        for i in order:
            chunks = cut(encoded[i])
            found = tree.acquire(chunks) if n_tokens < self.scoring_tokens else None
            if found is None:
                yield from self._read(tree, store, new, reached, encoded)
                new, reached, n_tokens = [], [], 0
                found = tree.acquire(chunks)
                assert found is not None
            leaf, fresh = found
            new.extend(fresh)
            reached.append((i, leaf))
            n_tokens += sum(len(node.tokens) for node in fresh)
        yield from self._read(tree, store, new, reached, encoded)

    def _read(
        self,
        tree: PageTree,
        store: KeyValues | CudaPages,
        new: list[Node],
        reached: list[tuple[int, Node]],
        encoded: dict[int, list[list[int]]],
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Fill the new nodes, each with p(good) after its last token; then collect the solutions'
        scores from the nodes.
        """
        for batch, nodes in prompt_batches(
            tree, new, new, min(self._runner.pass_tokens, self.scoring_tokens)
        ):
            logits = self._runner.forward(batch, store, torch.get_num_threads())
            for node, value in zip(nodes, _good(logits), strict=True):
                node.value = value
        for i, leaf in reached:
            values = {node.end: node.value for node in leaf.chain()}
            ends = itertools.accumulate(map(len, encoded[i]))
            next(ends)
            yield i, tuple(values[end] for end in ends)
            tree.release(leaf)

    def _in_rows(
        self, encoded: dict[int, list[list[int]]]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """One row a solution, rows of like length together up to a budget of padded tokens.

        Padding stands on the right, where a causal model never looks back from, so no mask is
        needed.
        """
        order = sorted(encoded, key=lambda i: sum(map(len, encoded[i])))
        start = 0
        while start < len(order):
            end = start + 1
            while (
                end < len(order)
                and (end + 1 - start) * sum(map(len, encoded[order[end]])) <= self.scoring_tokens
            ):
                end += 1
            chosen = order[start:end]
            yield from zip(chosen, self._batch([encoded[i] for i in chosen]), strict=True)
            start = end

    @torch.inference_mode()
    def _batch(self, encoded: list[list[list[int]]]) -> list[tuple[float, ...]]:
        ends = [list(itertools.accumulate(map(len, parts))) for parts in encoded]
        ids_BT = np.zeros((len(encoded), max(e[-1] for e in ends)), np.int64)
        for row, parts in enumerate(encoded):
            ids_BT[row, : ends[row][-1]] = [t for part in parts for t in part]
        device = next(self.model.parameters()).device
        logits_BTC = self.model(
            input_ids=torch.from_numpy(ids_BT).to(device), use_cache=False
        ).logits
        rows = torch.tensor([row for row, e in enumerate(ends) for _ in e[1:]], device=device)
        at = torch.tensor([end - 1 for e in ends for end in e[1:]], device=device)
        values = iter(_good(logits_BTC[rows, at]))
        return [tuple(next(values) for _ in e[1:]) for e in ends]


def _good(logits_NC: torch.Tensor) -> list[float]:
    """p(good) of each row; NaN where the model gave a logit that is no finite number, which softmax
    may hide.
    """
    good_N = torch.softmax(logits_NC.float(), dim=-1)[:, _GOOD]
    return torch.where(torch.isfinite(logits_NC).all(dim=-1), good_N, torch.nan).cpu().tolist()
