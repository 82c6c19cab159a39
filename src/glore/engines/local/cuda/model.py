"""A transformers model on pages with our kernels; decode steps are CUDA graphs.

Llama and its kin have a forward pass of our own (`glore.engines.local.cuda.decoder`). Any other
model's own forward pass runs unchanged except for its attention, so every architecture that calls
transformers' attention interface works. A decode step of n rows replays the graph of the next
larger row count (`padded_rows`). Its inputs are one buffer, sent by one copy. Drawing follows on
the GPU, and one small copy brings the tokens back (`Step.tokens`).
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from triton.errors import TritonError

from glore.engines.local.attention import ATTENTION_NAME, register
from glore.engines.local.batch import Batch
from glore.engines.local.cuda.decoder import Decoder
from glore.engines.local.cuda.inputs import Inputs, Sizes, chain_blocks, row_blocks
from glore.engines.local.cuda.kv_cache import CudaKVCache
from glore.engines.local.cuda.launch import (
    attend,
    block_queries,
    choose,
    is_interpreted,
    prompt_pairs,
    row_stats,
)
from glore.engines.local.draw import Drawn, Draws, DrawSettings, draw_each, not_finite
from glore.engines.local.memory import affordable_pages

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CudaModel", "Step", "padded_rows"]

_log = logging.getLogger(__name__)
_ENTRIES_PER_ROW = 32
"""Table entries of a graph at first: 512 tokens a row."""
_FEW_ROWS = 64
"""Up to this many rows, each is a block of its own: a GPU has more processors than there would be
blocks otherwise.
"""
_STEP_PAIRS = 16
_SLOTS_PER_ROW = 4


def padded_rows(n: int) -> int:
    """The row count whose graph does `n` rows: a power of two, or 1.5 times one from 32 on."""
    power = 1 << max(0, n - 1).bit_length()
    middle = power // 4 * 3
    return middle if n <= middle and middle >= 48 else power


@dataclasses.dataclass(slots=True)
class _ForwardContext:
    """What a model hands down to its attention: one batch and where its keys and values go."""

    pages: CudaKVCache
    inputs: Inputs
    is_step: bool
    n_block: int

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """As `glore.engines.local.attention.ForwardContext.attend`."""
        keys, values = self.pages.layer(layer, k)
        return attend(
            q, k, v, keys, values, self.inputs, self.n_block, scaling, window, softcap, self.is_step
        )


class Step(Drawn):
    """Drawn tokens that are copied to the host while it does something else."""

    def __init__(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tokens.device.type == "cuda":
            arriving = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            arriving.copy_(tokens, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
            tokens = arriving
        super().__init__(logits, tokens)

    def wait(self) -> None:
        """Wait until the tokens have arrived, and the step's inputs may be overwritten."""
        if self._event is not None:
            self._event.synchronize()

    def tokens(self) -> npt.NDArray[np.int64]:
        """One token id for each completion. Waits for the GPU.

        Raises EngineError on NaN or infinite logits.
        """
        self.wait()
        tokens: npt.NDArray[np.int64] = self._tokens.numpy()
        if (tokens < 0).any():
            raise not_finite()
        return tokens


@dataclasses.dataclass(slots=True)
class _Plan:
    """A decode step of a padded row count."""

    inputs: Inputs
    n_block: int
    graph: torch.cuda.CUDAGraph | None = None
    logits: torch.Tensor | None = None
    stats: tuple[torch.Tensor, torch.Tensor] | None = None


class CudaModel:
    """A model whose attention is set to our kernels.

    `keeps`: whether the model knows `logits_to_keep`. `decodes`: by `Decoder`; otherwise by the
    model's own layers. `captures`: whether steps become CUDA graphs; otherwise the same calls are
    made one by one. `refusal`: why capturing was given up, if it was. Raises NotImplementedError
    where Triton's kernels can't run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        keeps: bool,
        decodes: bool = True,
        captures: bool = True,
        step_pairs: int = _STEP_PAIRS,
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        if self.device.type != "cuda" and not is_interpreted():
            raise NotImplementedError(f"a model on {self.device.type}: Triton's kernels need a GPU")
        config = model.config.get_text_config()
        self._n_layers = int(config.num_hidden_layers)
        n_heads = int(config.num_attention_heads)
        self._n_each = max(1, n_heads // int(getattr(config, "num_key_value_heads", 0) or n_heads))
        self._keeps = keeps
        self._dtype = next(model.parameters()).dtype
        self._step_pairs = step_pairs
        self.captures = captures and self.device.type == "cuda"
        self.refusal = ""
        self._pages: CudaKVCache | None = None
        self._plans: dict[int, _Plan] = {}
        self._pool: Any = None
        self._bytes_per_page = 0
        self._decoder = Decoder(model) if decodes else None
        register()
        model.set_attn_implementation(ATTENTION_NAME)

    def new_kv_cache(self, n_pages: int) -> CudaKVCache:
        """A cache of `n_pages` pages. For the same number it is the same one, since graphs contain
        its address.
        """
        if self._pages is None or self._pages.n_pages != n_pages:
            self._forget()
            self._pages = CudaKVCache(n_pages, self._n_layers)
        return self._pages

    def _forget(self) -> None:
        self._plans.clear()
        if self._pages is not None:
            self._bytes_per_page = self._pages.bytes_per_page or self._bytes_per_page
        self._pages = None

    def affordable_pages(self, max_rows: int) -> int | None:
        """Pages that the GPU has memory for beside what `max_rows` rows need.

        None on a CPU or before the first forward pass.
        """
        if self._pages is not None:
            self._bytes_per_page = self._pages.bytes_per_page or self._bytes_per_page
        if self.device.type != "cuda" or not self._bytes_per_page:
            return None
        self._forget()
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self.device)
        n_vocab = self.model.get_input_embeddings().weight.shape[0]
        return affordable_pages(free, self._bytes_per_page, max_rows, n_vocab)

    @torch.inference_mode()
    def forward(self, batch: Batch, pages: CudaKVCache) -> torch.Tensor:
        """Logits [S, V] of the selected queries, in the model's type; keys and values go to the
        pages.
        """
        n_block = block_queries(self._n_each, prompt_pairs(self._dtype))
        blocks = chain_blocks(batch, n_block)
        inputs = Inputs(
            Sizes(batch.tokens.size, blocks.first.size, 0, batch.selected.size, batch.table.size),
            self.device,
        )
        inputs.fill(batch, blocks)
        self._rotate(batch)
        selected = inputs["selected"].long()
        return self._read(_ForwardContext(pages, inputs, False, n_block), selected)

    def _rotate(self, batch: Batch) -> None:
        """Rotations of all the batch's positions are there."""
        if self._decoder is not None and not self._decoder.has_angles(
            int(batch.positions.max()) + 1
        ):
            self._plans.clear()

    def close(self) -> None:
        """Free pages and graphs."""
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor, draws: Draws) -> Step:
        """One token per completion, each from its row of logits [R, V]."""
        if draws.is_filtered:
            return Step(logits, draw_each(logits, draws.row, draws.uniforms(), draws.settings))
        inputs = Inputs(Sizes(logits.shape[0], 0, draws.row.size, 0, 0), self.device)
        inputs.fill_draws(draws)
        return Step(
            logits, choose(logits, row_stats(logits, inputs.temperature), inputs, draws.row.size)[0]
        )

    @torch.inference_mode()
    def step(self, batch: Batch, draws: Draws, pages: CudaKVCache) -> Step:
        """One token for every completion of a decode step. Does not wait for the GPU."""
        self._rotate(batch)
        plan = self._plan(batch, draws)
        plan.inputs.fill(batch, row_blocks(batch, plan.n_block, plan.inputs.sizes.n_queries), draws)
        if plan.logits is None or plan.stats is None or plan.graph is None:
            self._run(plan, pages)
            if self.captures:
                self._capture(plan, pages)
        else:
            plan.graph.replay()
        assert plan.logits is not None
        assert plan.stats is not None
        logits = plan.logits[: batch.tokens.size]
        if draws.is_filtered:
            return Step(logits, draw_each(logits, draws.row, draws.uniforms(), draws.settings))
        return Step(logits, choose(logits, plan.stats, plan.inputs, draws.row.size)[0])

    def step_logits(self, batch: Batch, pages: CudaKVCache) -> torch.Tensor:
        """Logits [N, V] of a decode step whose tokens are not needed."""
        n = batch.tokens.size
        greedy = DrawSettings(
            np.zeros(n, np.float32), np.zeros(n, np.int64), np.ones(n, np.float32)
        )
        step = self.step(
            batch, Draws(np.arange(n), np.zeros(n, np.uint64), np.zeros(n, np.int64), greedy), pages
        )
        step.wait()
        return step.logits.clone()  # the next step's go to the same place

    def _plan(self, batch: Batch, draws: Draws) -> _Plan:
        n = padded_rows(batch.tokens.size)
        plan = self._plans.get(n)
        room = (
            plan.inputs.sizes
            if plan is not None
            else Sizes(n, 0, _SLOTS_PER_ROW * n, 0, _ENTRIES_PER_ROW * n)
        )
        if plan is None or batch.table.size > room.n_entries or draws.row.size > room.n_completions:
            n_block = 1 if n <= _FEW_ROWS else block_queries(self._n_each, self._step_pairs)
            n_entries = max(
                room.n_entries, 2 * batch.table.size if batch.table.size > room.n_entries else 0
            )
            n_completions = max(
                room.n_completions, 2 * draws.row.size if draws.row.size > room.n_completions else 0
            )
            inputs = Inputs(Sizes(n, -(-n // n_block), n_completions, 0, n_entries), self.device)
            plan = self._plans[n] = _Plan(inputs, n_block)
        return plan

    def _run(self, plan: _Plan, pages: CudaKVCache) -> None:
        """Run a step call by call: the calls that a graph records."""
        plan.logits = self._read(_ForwardContext(pages, plan.inputs, True, plan.n_block), None)
        plan.stats = row_stats(plan.logits, plan.inputs.temperature)

    def _capture(self, plan: _Plan, pages: CudaKVCache) -> None:
        """Record the step that has just been run, and replay it."""
        ran = plan.logits, plan.stats
        graph = torch.cuda.CUDAGraph()
        if all(other.graph is None for other in self._plans.values()):
            # Graphs share memory; memory whose graphs are all gone can't be recorded into again.
            self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(self.device)
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                self._run(plan, pages)
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.captures, self.refusal = False, " ".join(str(error).split())[:200]
            plan.logits, plan.stats = ran
            _log.warning(
                "decode steps are not recorded as CUDA graphs, which is several times slower: %s",
                self.refusal,
            )
            return
        plan.graph = graph
        graph.replay()

    def _read(self, reading: _ForwardContext, selected: torch.Tensor | None) -> torch.Tensor:
        try:
            if self._decoder is not None:
                return self._decoder.forward(
                    reading.inputs, reading.pages, reading.is_step, reading.n_block, selected
                )
            output = self.model(
                input_ids=reading.inputs["tokens"].long()[None],
                position_ids=reading.inputs["positions"].long()[None],
                use_cache=False,
                glore_context=reading,
                **({"logits_to_keep": selected} if self._keeps and selected is not None else {}),
            )
        except TritonError as error:  # a shape that the GPU or the compiler does not support
            raise NotImplementedError(f"Triton: {error}") from error
        logits: torch.Tensor = output.logits[0]
        return logits if selected is None or self._keeps else logits[selected]
