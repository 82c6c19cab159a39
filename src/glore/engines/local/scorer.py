"""Step scores from a reward model: solutions in, the probability of "good" after every step out.

Method 2: token classification, read at the last token of each step; how questions and steps are
written is the layout's matter (`glore.step_layouts`), and so is which classes count as good. One
forward pass scores all steps of a solution. Solutions lie in a prefix tree
(`glore.engines.local.prefix_tree`): the tokens of a question, and of the steps that several of its
solutions begin with, are computed once. Scores of a batch equal single ones up to rounding.
Axes: B solutions, N positions, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.engines.lifetime import Closable
from glore.engines.local.attention import KVCache
from glore.engines.local.batch import prompt_batches
from glore.engines.local.memory import free_unused, halved
from glore.engines.local.prefix_tree import PAGE_SIZE, Node, PrefixTree, cut
from glore.engines.local.runner import BACKENDS, ModelRunner
from glore.engines.protocol import check_scores
from glore.errors import EngineError, ModelError, out_of_memory, shown
from glore.prompts import PLAIN, PromptLayout
from glore.step_head import BINARY
from glore.step_layouts.apart import GloreLayout
from glore.step_layouts.parts import Item, Parts, StepLayout, score_positions, token_ids
from glore.tokenization import check_embedded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import EngineSettings
    from glore.engines.local.cuda.kv_cache import CudaKVCache

__all__ = ["StepScorer", "fitting"]

_TOO_SMALL = (
    "not enough memory to score a single solution; use a smaller reward model or another machine"
)


class StepScorer(Closable):
    """Scores solutions with a token-classification model (`AutoModelForTokenClassification`, labels
    0 = bad, 1 = good, and perhaps 2 = neutral).
    """

    def __init__(
        self,
        model_path: str | Path,
        settings: EngineSettings,
        layout: PromptLayout | StepLayout = PLAIN,
    ) -> None:
        from glore.devices import pick_device
        from glore.models import load_step_model, load_tokenizer

        tokenizer = load_tokenizer(str(model_path))
        model = load_step_model(
            str(model_path), dtype=settings.dtype, device=str(pick_device(settings.device))
        )
        if model.config.num_labels != len(BINARY.names):
            raise ModelError(
                f"the reward model {shown(str(model_path))} has three classes; open it with "
                "glore.open_reward_model, which reads what its neutral class counts as"
            )
        self._set_up(model, tokenizer, settings.scoring_tokens, layout=layout)
        self.name = str(model_path)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scoring_tokens: int = 16384,
        backends: tuple[str, ...] = BACKENDS,
        layout: PromptLayout | StepLayout = PLAIN,
        good_classes: tuple[int, ...] = BINARY.good_classes,
    ) -> StepScorer:
        """A scorer over a model that is loaded already. `good_classes`: those whose probabilities
        add up to a score.
        """
        scorer = cls.__new__(cls)
        scorer._set_up(model, tokenizer, scoring_tokens, backends, layout, good_classes)
        return scorer

    def _set_up(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scoring_tokens: int,
        backends: tuple[str, ...] = BACKENDS,
        layout: PromptLayout | StepLayout = PLAIN,
        good_classes: tuple[int, ...] = BINARY.good_classes,
    ) -> None:
        self.model = model.eval()
        self._good_classes = list(good_classes)
        self.name = type(model).__name__
        self.tokenizer = tokenizer
        self.layout = GloreLayout(layout) if isinstance(layout, PromptLayout) else layout
        self.scoring_tokens = scoring_tokens
        self._runner = ModelRunner(self.model, backends)
        self.warning = self._runner.warning
        shape = model.config.get_text_config()
        self._context = int(getattr(shape, "max_position_embeddings", 0) or 1 << 30)

    @property
    def backend(self) -> str:
        """What reads the model, and the type of its products: `native float32`, …"""
        self.check_open()
        return self._runner.description

    def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        """For each (question, steps): p(good) after each step. No steps give an empty tuple.

        When memory runs out, the rest and all later solutions are scored with half as many tokens
        at a time. Raises EngineError when a solution does not fit into the model's context or no
        solution fits into memory, ModelError when the model's scores are no probabilities.
        """
        self.check_open()
        scores: list[tuple[float, ...]] = [()] * len(items)
        todo = self._encode({i: item for i, item in enumerate(items) if item[1]})
        score = self._in_rows if self._runner.backend == "fallback" else self._in_a_tree
        while todo:
            try:
                for i, values in score(dict(todo)):
                    check_scores(self.name, items[i][0], values)
                    scores[i] = values
                    del todo[i]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self.scoring_tokens = halved(
                    self.scoring_tokens, "tokens", error, PAGE_SIZE, _TOO_SMALL
                )
        return scores

    def fits(self, items: Sequence[Item]) -> list[bool]:
        """For each solution: does it fit into the model's context with its question?"""
        self.check_open()
        return fitting(items, self.layout, self.tokenizer, self._context)

    def _free(self) -> None:
        self._runner.close()
        del self.model, self.tokenizer, self._runner
        free_unused()

    def _encode(self, inputs: dict[int, Item]) -> dict[int, Parts]:
        """The parts of each solution."""
        encoded = dict(
            zip(inputs, self.layout.encode(self.tokenizer, list(inputs.values())), strict=True)
        )
        n_embeddings = int(self.model.get_input_embeddings().weight.shape[0])
        for index, parts in encoded.items():
            check_embedded(self.tokenizer, n_embeddings, token_ids(parts))
            n_tokens = sum(map(len, parts))
            if n_tokens > self._context:
                raise EngineError(
                    f"solution {index} of the batch has {n_tokens} tokens with its question and "
                    f"the reward model's context is {self._context}; leave it out, or use a model "
                    "with a longer context"
                )
        return encoded

    def _in_a_tree(self, encoded: dict[int, Parts]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Score with solutions of one question together: what they share is computed once."""
        order = sorted(encoded, key=lambda i: encoded[i])
        longest = max((len(cut(parts)) for parts in encoded.values()), default=0)
        tree = PrefixTree(max(longest, -(-2 * self.scoring_tokens // PAGE_SIZE)))
        kv_cache = self._runner.new_kv_cache(tree.n_pages)
        new: list[Node] = []
        reached: list[tuple[int, Node]] = []
        n_tokens = 0
        for i in order:
            chunks = cut(encoded[i])
            found = tree.acquire(chunks) if n_tokens < self.scoring_tokens else None
            if found is None:
                yield from self._read(tree, kv_cache, new, reached, encoded)
                new, reached, n_tokens = [], [], 0
                found = tree.acquire(chunks)
                assert found is not None
            leaf, fresh = found
            new.extend(fresh)
            reached.append((i, leaf))
            n_tokens += sum(len(node.tokens) for node in fresh)
        yield from self._read(tree, kv_cache, new, reached, encoded)

    def _read(
        self,
        tree: PrefixTree,
        kv_cache: KVCache | CudaKVCache,
        new: list[Node],
        reached: list[tuple[int, Node]],
        encoded: dict[int, Parts],
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Set each new node's value to p(good) after its last token, then collect the solutions'
        scores from the nodes.
        """
        for batch, nodes in prompt_batches(
            tree, new, new, min(self._runner.pass_tokens, self.scoring_tokens)
        ):
            logits = self._runner.forward(batch, kv_cache, torch.get_num_threads())
            for node, value in zip(nodes, self._good(logits), strict=True):
                node.value = value
        for i, leaf in reached:
            values = {node.end: node.value for node in leaf.chain()}
            yield i, tuple(values[at + 1] for at in score_positions(encoded[i]))
            tree.release(leaf)

    def _in_rows(self, encoded: dict[int, Parts]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Score with one row a solution, rows of similar length together, up to a budget of padded
        tokens.

        Padding is on the right, which a causal model does not see, so no mask is needed.
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
    def _batch(self, encoded: list[Parts]) -> list[tuple[float, ...]]:
        places = [score_positions(parts) for parts in encoded]
        rows = [token_ids(parts) for parts in encoded]
        ids_BT = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for n, ids in enumerate(rows):
            ids_BT[n, : len(ids)] = ids
        device = next(self.model.parameters()).device
        logits_BTC = self.model(
            input_ids=torch.from_numpy(ids_BT).to(device), use_cache=False
        ).logits
        row = torch.tensor([n for n, each in enumerate(places) for _ in each], device=device)
        at = torch.tensor([place for each in places for place in each], device=device)
        values = iter(self._good(logits_BTC[row, at]))
        return [tuple(next(values) for _ in each) for each in places]

    def _good(self, logits_NC: torch.Tensor) -> list[float]:
        """p(good) of each row, the neutral class included where it counts as good; NaN where a
        logit is not finite, which softmax may hide.
        """
        p_NC = torch.softmax(logits_NC.float(), dim=-1)
        # A sum of probabilities may exceed 1 by a rounding.
        good_N = p_NC[:, self._good_classes].sum(dim=-1).clamp(max=1.0)
        return torch.where(torch.isfinite(logits_NC).all(dim=-1), good_N, torch.nan).cpu().tolist()


def fitting(
    items: Sequence[Item], layout: StepLayout, tokenizer: PreTrainedTokenizerBase, context: int
) -> list[bool]:
    """For each solution: does it fit into `context` tokens with its question?"""
    return [sum(map(len, parts)) <= context for parts in layout.encode(tokenizer, items)]
