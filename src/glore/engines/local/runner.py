"""Feeds a transformers model batches of paged tokens, in the fastest way that gives the model's own
logits.

Four ways: our kernels on a GPU (`glore.engines.cuda`), the compiled forward pass (forward.c;
Llama-like models on a CPU), transformers' own forward pass through our attention
(`glore.engines.local.attention`), or none of them; then callers fall back on plain forward passes.
A way is taken only if its logits agree with the model's plain forward pass on a few tokens
(`glore.engines.local.startup_check`).
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.engines.local.attention import ATTENTION_NAME, KeyValues, Reading, register
from glore.engines.local.batch import Batch
from glore.engines.local.draw import Drawn, Draws, draw_each
from glore.engines.local.native.build import Library, library
from glore.engines.local.native.call import NativeModel, draw_natively
from glore.engines.local.prefix_tree import PAGE_SIZE
from glore.engines.local.startup_check import expected_logits, fault, trial_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.config.engine import Quantization
    from glore.engines.local.cuda.model import CudaModel
    from glore.engines.local.cuda.pages import CudaPages

__all__ = ["WAYS", "ModelRunner"]

_log = logging.getLogger(__name__)
WAYS = ("cuda", "native", "paged")
"""From the fastest to the slowest."""
_MISFITS = (
    NotImplementedError,
    TypeError,
    ValueError,
    RuntimeError,
    KeyError,
    AttributeError,
    AssertionError,
    IndexError,
)
_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""What the ways know, where a model's settings name its layers' types."""
_COSTS = {
    "paged": "several times slower",
    "plain": "many times slower: every completion reads its own prompt",
}
"""Of a way that is taken because a better one was refused."""


class _UnknownHereError(Exception):
    """The way is for other models or machines: no fault, and nothing to warn of."""


class ModelRunner:
    """One model. `way`: `cuda`, `native`, `paged`, or `plain` (then `forward` can't be used).
    `refusals`: why better ways were not taken.

    `quantization`: of the native way, which alone can do it. `compiles`: of the cuda way
    (`CudaModel`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ways: tuple[str, ...] = WAYS,
        quantization: Quantization = "none",
        compiles: bool = False,
    ) -> None:
        self.model = model
        self._quantization = quantization
        self._compiles = compiles
        self.device = next(model.parameters()).device
        self._native: NativeModel | None = None
        self._cuda: CudaModel | None = None
        self._library: Library | None = None
        self._keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.refusals: dict[str, str] = {}
        self._has_fault = False
        self._asked = ways
        if next(iter(ways), "") == "plain":
            ways = ()
        self.way = next((way for way in ways if self._fits(way)), "plain")
        if self._has_fault or (self.way == "plain" and ways):
            cost = _COSTS.get(self.way, "slower")
            _warn_once(
                f"{type(model).__name__} in {self.dtype} is read the {self.way} way, {cost}. "
                f"Refused: {self.reason}"
            )

    @property
    def reason(self) -> str:
        """Why no better way was taken; empty where the first was."""
        return "; ".join(f"{way}: {why}" for way, why in self.refusals.items())

    @property
    def dtype(self) -> str:
        """The model's own type, such as `bfloat16`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def products(self) -> str:
        """What the compiled code computes products in: `float32`, `bfloat16`, `int16` or `int8`;
        else the model's own type.
        """
        return self._native.products if self._native is not None else self.dtype

    @property
    def pass_tokens(self) -> int:
        """How many prompt tokens a forward pass should have: enough to keep the machine busy."""
        return 2048 if self._cuda is None else 16384

    @property
    def overlaps(self) -> bool:
        """Whether the host is free while a step is computed."""
        return self._cuda is not None

    def pages_for(self, n_pages: int) -> KeyValues | CudaPages:
        """Room for the keys and values of so many pages, all layers (committed as it is used on a
        CPU).
        """
        if self._cuda is not None:
            return self._cuda.pages_for(n_pages)
        return KeyValues(n_pages, PAGE_SIZE if self._library is not None else 1)

    def affordable_pages(self, max_rows: int) -> int | None:
        """How many pages a GPU has room for, beside `max_rows` rows' logits; none where the memory
        is not a card's.
        """
        return None if self._cuda is None else self._cuda.affordable_pages(max_rows)

    def close(self) -> None:
        """Give a GPU's memory back; a later call takes it again."""
        if self._cuda is not None:
            self._cuda.close()

    @torch.inference_mode()
    def draw(self, logits_RV: torch.Tensor, draws: Draws) -> Drawn:
        """One token per completion, each from its row of logits (`glore.engines.local.draw`)."""
        if self._cuda is not None:
            return self._cuda.draw(logits_RV, draws)
        if self._library is None:
            return Drawn(
                logits_RV, draw_each(logits_RV, draws.row, draws.uniforms(), draws.settings)
            )
        return Drawn(
            logits_RV,
            draw_natively(self._library, logits_RV, draws.row, draws.uniforms(), draws.settings),
        )

    def step(
        self, batch: Batch, store: KeyValues | CudaPages, draws: Draws, n_threads: int = 1
    ) -> Drawn:
        """A decode step: one token per completion, from the logits of `batch`, whose queries are
        all selected.
        """
        if self._cuda is not None:
            assert not isinstance(store, KeyValues)
            return self._cuda.step(batch, draws, store)
        return self.draw(self.forward(batch, store, n_threads), draws)

    @torch.inference_mode()
    def forward(
        self, batch: Batch, store: KeyValues | CudaPages, n_threads: int = 1
    ) -> torch.Tensor:
        """Logits [S, V] of the selected queries in float32; keys and values go to the store.

        `n_threads`: of the compiled code; torch has its own setting.
        """
        if self._cuda is not None:
            assert not isinstance(store, KeyValues)
            return (
                self._cuda.forward(batch, store).float()
                if batch.dependent
                else self._cuda.step_logits(batch, store).float()
            )
        assert isinstance(store, KeyValues)
        if self.way == "native":
            assert self._native is not None
            if not (self._native.current if batch.dependent else self._native.unchanged):
                self._native = NativeModel(self.model, self._native.library, self._quantization)
            pairs = [store.layer(i, self._native.like) for i in range(self._native.n_layers)]
            return self._native.forward(batch, pairs, n_threads)
        selected = torch.from_numpy(batch.selected.astype(np.int64)).to(self.device)
        output = self.model(
            input_ids=torch.from_numpy(batch.tokens.astype(np.int64)).to(self.device)[None],
            position_ids=torch.from_numpy(batch.positions.astype(np.int64)).to(self.device)[None],
            use_cache=False,
            glore_reading=Reading(store, batch, self.device, self._library),
            **({"logits_to_keep": selected} if self._keep else {}),
        )
        logits: torch.Tensor = output.logits[0] if self._keep else output.logits[0, selected]
        return logits.float()

    def _fits(self, way: str) -> bool:
        """Set `way` up; whether it gives the model's own logits, for prompts read in parts and a
        completion read token by token.
        """
        before = self.model.config._attn_implementation
        self.way = way
        try:
            self._check_kind(way)
            # A model that was read in pages before is compared with its attention written out.
            self.model.set_attn_implementation("eager" if before == ATTENTION_NAME else before)
            expected = expected_logits(self.model)
            self._set_up(way)
            is_exact = self.products == "float32" and self.dtype == "float32"
            found = fault(trial_logits(self, self.model), expected, self.products, is_exact)
            if found is None:
                return True
            self._has_fault = True
            self.refusals[way] = found
        except _UnknownHereError as error:
            self.refusals[way] = str(error)
        except _MISFITS as error:
            self.refusals[way] = " ".join(str(error).split())[:200] or type(error).__name__
        _log.info(
            "%s can't be read the %s way: %s", type(self.model).__name__, way, self.refusals[way]
        )
        self._native = self._cuda = self._library = None
        self.model.set_attn_implementation(before)
        return False

    def _check_kind(self, way: str) -> None:
        """Raises what `_fits` takes for a refusal, where the way is not for this model or machine."""
        on_cpu = self.device.type == "cpu"
        if way == "native" and not on_cpu:
            raise _UnknownHereError("the model is not on a CPU")
        if way == "native" and library() is None:
            raise _UnknownHereError("there is no compiled code (no C compiler, or switched off)")
        if way == "cuda" and importlib.util.find_spec("triton") is None:
            raise _UnknownHereError("Triton is not installed")
        if way == "cuda" and on_cpu and self._asked != ("cuda",):
            raise _UnknownHereError(
                "the model is on a CPU"
            )  # there the interpreter runs the kernels, for tests that ask for it
        rope = getattr(self.model.config, "rope_parameters", None) or {}
        if "dynamic" in str(rope) or "longrope" in str(rope):
            raise NotImplementedError(
                "rotary frequencies that depend on the longest position of the batch"
            )
        if (
            other := set(getattr(self.model.config.get_text_config(), "layer_types", None) or ())
            - _LAYER_TYPES
        ):
            raise NotImplementedError(
                f"layers of the types {', '.join(sorted(other))}"
            )  # a short text may not show the difference

    def _set_up(self, way: str) -> None:
        is_float32 = self.dtype == "float32"
        self._library = (
            library()
            if self.device.type == "cpu" and (way == "native" or (way == "paged" and is_float32))
            else None
        )
        if way == "native":
            assert self._library is not None
            self._native = NativeModel(self.model, self._library, self._quantization)
        elif way == "cuda":
            from glore.engines.local.cuda.model import CudaModel

            self._cuda = CudaModel(self.model, self._keep, compiles=self._compiles)
        else:
            register()
            self.model.set_attn_implementation(ATTENTION_NAME)


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
