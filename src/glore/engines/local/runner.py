"""Reads batches of paged tokens with a transformers model, through the fastest backend that gives
the model's own logits.

Backends: `cuda` is our kernels on a GPU (`glore.engines.local.cuda`; Llama and its kin),
`cuda-layers` transformers' own layers around our attention kernel there, `native` the compiled
forward pass (forward.c; Llama and its kin on a CPU), `paged` transformers' own forward pass through
our attention (`glore.engines.local.attention`). A backend is used only if its logits agree with the
model's own forward pass on a few tokens (`glore.engines.local.startup_check`). Without one, callers
fall back on the model's own forward pass (`fallback`).
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.engines.local.attention import ATTENTION_NAME, ForwardContext, KVCache, register
from glore.engines.local.batch import Batch
from glore.engines.local.draw import Drawn, Draws, draw_each, on_drawing_device
from glore.engines.local.native.build import KNOWN, Library, is_switched_off, library
from glore.engines.local.native.call import NativeModel, draw_natively
from glore.engines.local.prefix_tree import PAGE_SIZE
from glore.engines.local.startup_check import expected_logits, fault, trial_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.config.engine import Quantization
    from glore.engines.local.cuda.kv_cache import CudaKVCache
    from glore.engines.local.cuda.model import CudaModel

__all__ = ["BACKENDS", "ModelRunner"]

_log = logging.getLogger(__name__)
BACKENDS = ("cuda", "cuda-layers", "native", "paged")
"""From the fastest to the slowest."""
_OF_GPUS = frozenset({"cuda", "cuda-layers"})
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
"""Types of layers that the backends know; a model's settings may name those of its layers."""
_COSTS = {
    "cuda-layers": "about half as fast",
    "paged": "several times slower",
    "fallback": "many times slower: every completion reads its own prompt",
}
"""What it costs to use a backend because a better one was refused."""


class _UnsupportedError(Exception):
    """The backend is for other models or machines. That is no fault and needs no warning."""


class _OtherDeviceError(_UnsupportedError):
    """The backend is for other devices than the model's, so nothing about it explains what is used
    here.
    """


class _LackingError(Exception):
    """The backend is for models of this kind on such a device, and this machine lacks a program
    that it needs.
    """


class ModelRunner:
    """One model and its backend.

    `backends`: those that may be used, the best first. `quantization`: of the native backend, the
    only one that has it.

    `backend` is the one in use; with `fallback`, `forward` can't be called. `refusals`: why better
    backends are not used. `warning`: that, and its cost, if the backend is slower than the model's
    kind has; "" otherwise. `fault`: what was wrong with the logits of the last one that was refused
    for its logits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        backends: tuple[str, ...] = BACKENDS,
        quantization: Quantization = "none",
    ) -> None:
        self.model = model
        self._quantization = quantization
        self.device = next(model.parameters()).device
        self._native: NativeModel | None = None
        self._cuda: CudaModel | None = None
        self._library: Library | None = None
        self._idle_cache: KVCache | None = None
        self._keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.refusals: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self.warning = ""
        self.fault = ""
        self._asked = backends
        self._n_lacking = 0
        if next(iter(backends), "") == "fallback":
            backends = ()
        self.backend = next((backend for backend in backends if self._fits(backend)), "fallback")
        # On a GPU, `paged` is used only where Triton is missing or fails.
        is_lacking = self._n_lacking or (self.backend == "paged" and self.device.type == "cuda")
        if self.fault or (backends and (is_lacking or self.backend == "fallback")):
            cost = _COSTS.get(self.backend, "slower")
            self.warning = (
                f"{type(model).__name__} in {self.dtype} uses the {self.backend} backend, {cost}. "
                f"Refused: {self.reason}"
            )

    @property
    def reason(self) -> str:
        """Why no better backend of this device is used; empty if the first one is."""
        return "; ".join(
            f"{backend}: {why}"
            for backend, why in self.refusals.items()
            if backend not in self._elsewhere
        )

    @property
    def description(self) -> str:
        """The backend in words, such as `native int8`; for the fallback with the reason."""
        reason = f" ({self.reason})" if self.backend == "fallback" and self.reason else ""
        return f"{self.backend} {self.products}{reason}"

    @property
    def dtype(self) -> str:
        """The model's own type, such as `bfloat16`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def products(self) -> str:
        """The type of products: `float32`, `bfloat16`, `int16` or `int8` in compiled code; the
        model's own type otherwise.
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

    def new_kv_cache(self, n_pages: int) -> KVCache | CudaKVCache:
        """A cache for the keys and values of `n_pages` pages in all layers.

        On a CPU its memory is committed as it is used. One that was given back is used again, with
        what stands in it: to have the system page in as much memory for every run took up to
        seconds.
        """
        if self._cuda is not None:
            return self._cuda.new_kv_cache(n_pages)
        idle, self._idle_cache = self._idle_cache, None
        if idle is not None and idle.n_pages == n_pages:
            return idle
        return KVCache(n_pages, PAGE_SIZE if self._library is not None else 1)

    def give_back(self, kv_cache: KVCache | CudaKVCache) -> None:
        """Take back a cache that is no longer in use and has only finite numbers."""
        if isinstance(kv_cache, KVCache):
            self._idle_cache = kv_cache

    def affordable_pages(self, max_rows: int) -> int | None:
        """Pages that a GPU has memory for beside `max_rows` rows' logits; none without a GPU."""
        return None if self._cuda is None else self._cuda.affordable_pages(max_rows)

    def close(self) -> None:
        """Free memory that a later call can allocate again: a GPU's, an idle cache."""
        self._idle_cache = None
        if self._native is not None:
            self._native.free()
        if self._cuda is not None:
            self._cuda.close()

    @torch.inference_mode()
    def draw(self, logits_RV: torch.Tensor, draws: Draws, n_threads: int = 1) -> Drawn:
        """One token per completion, each from its row of logits (`glore.engines.local.draw`).

        `n_threads`: of the compiled code.
        """
        if self._cuda is not None:
            return self._cuda.draw(logits_RV, draws)
        if self._library is None:
            logits_RV = on_drawing_device(logits_RV)
            return Drawn(
                logits_RV, draw_each(logits_RV, draws.row, draws.uniforms(), draws.settings)
            )
        return Drawn(
            logits_RV,
            draw_natively(
                self._library,
                logits_RV,
                draws.row,
                draws.uniforms(),
                draws.settings,
                n_threads,
            ),
        )

    def step(
        self, batch: Batch, kv_cache: KVCache | CudaKVCache, draws: Draws, n_threads: int = 1
    ) -> Drawn:
        """A decode step: one token per completion, from the logits of `batch`.

        All queries of the batch are selected. The logits count until the next step.
        """
        if self._cuda is not None:
            assert not isinstance(kv_cache, KVCache)
            return self._cuda.step(batch, draws, kv_cache)
        return self.draw(self.forward(batch, kv_cache, n_threads), draws, n_threads)

    @torch.inference_mode()
    def forward(
        self, batch: Batch, kv_cache: KVCache | CudaKVCache, n_threads: int = 1
    ) -> torch.Tensor:
        """Logits [S, V] of the selected queries in float32; keys and values go to the cache.

        Those of a decode step count until the next one. `n_threads`: of the compiled code; torch
        has its own setting.
        """
        if self._cuda is not None:
            assert not isinstance(kv_cache, KVCache)
            return (
                self._cuda.forward(batch, kv_cache).float()
                if batch.dependent
                else self._cuda.step_logits(batch, kv_cache).float()
            )
        assert isinstance(kv_cache, KVCache)
        if self.backend == "native":
            assert self._native is not None
            if not (self._native.current if batch.dependent else self._native.unchanged):
                self._native = NativeModel(self.model, self._native.library, self._quantization)
            pairs = [kv_cache.layer(i, self._native.like) for i in range(self._native.n_layers)]
            return self._native.forward(batch, pairs, n_threads)
        selected = torch.from_numpy(batch.selected.astype(np.int64)).to(self.device)
        output = self.model(
            input_ids=torch.from_numpy(batch.tokens.astype(np.int64)).to(self.device)[None],
            position_ids=torch.from_numpy(batch.positions.astype(np.int64)).to(self.device)[None],
            use_cache=False,
            glore_context=ForwardContext(kv_cache, batch, self.device, self._library),
            **({"logits_to_keep": selected} if self._keep else {}),
        )
        logits: torch.Tensor = output.logits[0] if self._keep else output.logits[0, selected]
        return logits.float()

    def _fits(self, backend: str) -> bool:
        """Set up `backend`. Returns whether it gives the model's own logits.

        It is tried on prompts read in parts and on a completion read token by token.
        """
        before = self.model.config._attn_implementation
        self.backend = backend
        try:
            self._check_kind(backend)
            # A model that was read in pages before is compared with its attention written out.
            self.model.set_attn_implementation("eager" if before == ATTENTION_NAME else before)
            expected = expected_logits(self.model)
            self._set_up(backend)
            is_exact = self.products == "float32" and self.dtype == "float32"
            found = fault(trial_logits(self, self.model), expected, self.products, is_exact)
            if found is None:
                return True
            self.fault = self.refusals[backend] = found
        except _UnsupportedError as error:
            self.refusals[backend] = str(error)
            if isinstance(error, _OtherDeviceError):
                self._elsewhere.add(backend)
        except _LackingError as error:
            self.refusals[backend] = str(error)
            self._n_lacking += 1
        except _MISFITS as error:
            self.refusals[backend] = " ".join(str(error).split())[:200] or type(error).__name__
        _log.info(
            "%s can't use the %s backend: %s",
            type(self.model).__name__,
            backend,
            self.refusals[backend],
        )
        self._native = self._cuda = self._library = None
        self.model.set_attn_implementation(before)
        return False

    def _check_kind(self, backend: str) -> None:
        """Raise what `_fits` takes for a refusal where the backend does not fit."""
        on_cpu = self.device.type == "cpu"
        if backend == "native" and not on_cpu:
            raise _OtherDeviceError("the model is not on a CPU")
        if backend == "native" and library() is None:
            if self.model.config.model_type in KNOWN and not is_switched_off():
                raise _LackingError(
                    "there is no compiled code, for want of a C compiler that works (cc, gcc or "
                    "clang): install one"
                )
            raise _UnsupportedError("there is no compiled code (no C compiler, or switched off)")
        if backend in _OF_GPUS and on_cpu and not _OF_GPUS.issuperset(self._asked):
            raise _OtherDeviceError(
                "the model is on a CPU"
            )  # there the interpreter runs the kernels, for tests that ask for it
        if backend in _OF_GPUS and importlib.util.find_spec("triton") is None:
            raise _UnsupportedError("Triton is not installed")
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

    def _set_up(self, backend: str) -> None:
        is_float32 = self.dtype == "float32"
        self._library = (
            library()
            if self.device.type == "cpu"
            and (backend == "native" or (backend == "paged" and is_float32))
            else None
        )
        if backend == "native":
            assert self._library is not None
            self._native = NativeModel(self.model, self._library, self._quantization)
        elif backend in _OF_GPUS:
            from glore.engines.local.cuda.model import CudaModel

            self._cuda = CudaModel(self.model, self._keep, decodes=backend == "cuda")
        else:
            register()
            self.model.set_attn_implementation(ATTENTION_NAME)
