"""Calls of forward.c: tensors and arrays in, tensors out."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.batch import Batch
from glore.engines.local.draw import DrawSettings, draw_each
from glore.engines.local.llama_weights import LayerWeights, LlamaWeights, angles, llama_weights
from glore.engines.local.native.build import KINDS, Library
from glore.engines.local.native.rotation import rotated_ends, rotated_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.config.engine import Quantization

__all__ = ["NativeModel", "attend_natively", "draw_natively"]

_FP32, _BF16, _INT16, _INT8 = range(4)
"""As in forward.c."""
_SMALL_HEAD = 0.1
"""Of all weights."""
_WORD = ctypes.c_void_p
_NUMBER = ctypes.c_int64


class _Layer(ctypes.Structure):
    _fields_ = (
        *(
            (name, _WORD)
            for name in (
                "input_norm",
                "qkv",
                "qkv_bias",
                "q_norm",
                "k_norm",
                "out",
                "out_bias",
                "mlp_norm",
                "gate_up",
                "down",
            )
        ),
        ("window", _NUMBER),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *(
            (name, _NUMBER)
            for name in (
                "n_layers",
                "hidden",
                "n_heads",
                "n_kv",
                "head_dim",
                "inter",
                "n_out",
                "kind",
                "head_kind",
            )
        ),
        *((name, _WORD) for name in ("embed", "final_norm", "head", "head_bias", "cosine", "sine")),
        ("layers", ctypes.POINTER(_Layer)),
        ("eps", ctypes.c_double),
        ("scale", ctypes.c_double),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, _NUMBER) for name in ("n", "n_selected", "stride", "dependent")),
        *(
            (name, _WORD)
            for name in (
                "tokens",
                "positions",
                "write_page",
                "write_offset",
                "chain",
                "n_pages",
                "n_last",
                "n_prompt",
            )
        ),
        *(
            (name, _WORD)
            for name in ("table", "fill", "start", "keys", "values", "selected", "logits")
        ),
    )


def attend_natively(
    library: Library,
    batch: Batch,
    layer: tuple[torch.Tensor, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One layer's attention: q [N, heads, D], k and v [N, H, D] → [N, heads, D]; float32, CPU."""
    q, k, v = (x.contiguous() for x in (q, k, v))
    out = torch.empty_like(q)
    pointers = (
        np.array([layer[0].data_ptr()], np.uint64),
        np.array([layer[1].data_ptr()], np.uint64),
    )
    packed = _packed(batch, *pointers, None)
    sizes = q.shape[1], k.shape[1], k.shape[2]
    tensors = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
    if library.glore_attend(
        ctypes.byref(packed),
        0,
        *tensors,
        *sizes,
        scaling,
        softcap or 0.0,
        window or 0,
        torch.get_num_threads(),
    ):
        raise MemoryError("no memory for attention")
    return out


def draw_natively(
    library: Library,
    logits_RV: torch.Tensor,
    row_C: npt.NDArray[np.int64],
    uniform_C: npt.NDArray[np.float32],
    settings: DrawSettings,
    n_threads: int = 1,
) -> torch.Tensor:
    """The same tokens as `glore.engines.local.draw.draw_each`, for float32 logits on a CPU.

    torch draws where the random number is within rounding of a step of the distribution function
    (one token in a thousand if 500 tokens are equally likely, otherwise fewer), and with top-k and
    top-p.
    """
    if settings.top_k.any() or (settings.top_p < 1).any() or not row_C.size:
        return draw_each(logits_RV, row_C, uniform_C, settings)
    logits_RV = logits_RV.contiguous()
    tokens = np.empty(row_C.size, np.int64)
    pointers = (a.ctypes.data for a in (settings.temperature, uniform_C, tokens))
    if library.glore_draw(
        logits_RV.data_ptr(),
        row_C.ctypes.data,
        row_C.size,
        logits_RV.shape[1],
        *pointers,
        n_threads,
    ):
        raise MemoryError("no memory for drawing")
    unsure = np.flatnonzero(tokens < 0)
    if unsure.size:
        chosen = DrawSettings(
            settings.temperature[unsure], settings.top_k[unsure], settings.top_p[unsure]
        )
        tokens[unsure] = draw_each(logits_RV, row_C[unsure], uniform_C[unsure], chosen).numpy()
    return torch.from_numpy(tokens)


def _packed(
    batch: Batch,
    keys: npt.NDArray[np.uint64],
    values: npt.NDArray[np.uint64],
    logits: npt.NDArray[np.float32] | None,
) -> _Batch:
    b = batch
    arrays = (
        b.tokens,
        b.positions,
        b.write_page,
        b.write_offset,
        b.chain,
        b.n_pages,
        b.n_last,
        b.n_prompt,
        b.table,
        b.fill,
        b.start,
    )
    assert all(a.dtype == np.int32 and a.flags.c_contiguous for a in (*arrays, b.selected))
    rest = (
        keys.ctypes.data,
        values.ctypes.data,
        b.selected.ctypes.data,
        None if logits is None else logits.ctypes.data,
    )
    return _Batch(
        b.tokens.size,
        b.selected.size,
        b.table.shape[1],
        int(b.dependent),
        *(a.ctypes.data for a in arrays),
        *rest,
    )


class NativeModel:
    """The weights of a Llama, Mistral, Qwen2 or Qwen3 model, laid out for forward.c.

    They are in float32, in bfloat16 if the model's are, or in int16 or int8 (`quantization`).
    Raises NotImplementedError for any other model, and for integers on a processor without the
    instructions. `current` says whether the model's weights are still those laid out.
    """

    def __init__(
        self, model: PreTrainedModel, library: Library, quantization: Quantization = "none"
    ) -> None:
        weights = llama_weights(model)
        self._model, self.library = model, library
        self._parameters = list(model.parameters())
        is_bfloat16 = next(model.parameters()).dtype == torch.bfloat16 and bool(
            library.glore_has(_BF16)
        )
        self.kind = (
            KINDS.index(quantization) if quantization != "none" else _BF16 if is_bfloat16 else _FP32
        )
        is_integer = self.kind in (_INT16, _INT8)
        if not library.glore_has(self.kind):
            raise NotImplementedError("products of integers without AVX512-VNNI instructions")
        self._version, self._n_written = (
            self._fingerprint(),
            sum(p._version for p in self._parameters),
        )
        self._kept: list[torch.Tensor] = []
        kv, size = weights.n_kv_heads, weights.head_size
        self.like = torch.empty(kv, size, dtype=torch.float16 if is_integer else torch.float32)
        """Keys of one token, for their shape and type."""
        self.n_layers, self.n_out = len(weights.layers), weights.head.shape[0]
        head_kind = self._head_kind(weights)
        layers: Iterable[LayerWeights] = weights.layers
        if self.kind == _INT8:
            weights, layers = rotated_ends(weights), map(rotated_layer, layers)
        self._layers = (_Layer * self.n_layers)(*map(self._layer, layers))
        self._c = _Model(
            *(
                self.n_layers,
                weights.embedding.shape[1],
                weights.n_heads,
                kv,
                size,
                weights.inner_size,
                self.n_out,
                self.kind,
                head_kind,
            ),
            self._vector(weights.embedding),
            self._vector(weights.final_norm),
            self._panels(weights.head, kind=head_kind),
            self._vector(weights.head_bias),
            *(None, None, self._layers, weights.eps, size**-0.5),
        )
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None
        self.free()

    @property
    def products(self) -> str:
        """The type in which the products of weights and inputs are computed."""
        return KINDS[self.kind]

    @property
    def unchanged(self) -> bool:
        """Whether no weight has been written to since. Cheaper than `current`, which also notices
        weights that were exchanged.
        """
        return sum(p._version for p in self._parameters) == self._n_written

    @property
    def current(self) -> bool:
        """Whether no weight has changed since."""
        return self._fingerprint() == self._version

    def forward(
        self,
        batch: Batch,
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        n_threads: int,
    ) -> torch.Tensor:
        """Logits [S, outputs] of the selected queries.

        `pairs`: keys and values of each layer, with the head size padded to 16. The logits of a
        decode step count until the next one. Their memory serves all steps, since the system would
        have to clear as much for each of them: a tenth of a 135M model's time.
        """
        self._rotary(int(batch.positions.max()) + 1)
        keys, values = (
            np.array([pair[side].data_ptr() for pair in pairs], np.uint64) for side in (0, 1)
        )
        shape = batch.selected.size, self.n_out
        logits = np.empty(shape, np.float32) if batch.dependent else self._step_logits(*shape)
        packed = _packed(batch, keys, values, logits)
        if self.library.glore_forward(ctypes.byref(self._c), ctypes.byref(packed), n_threads):
            raise MemoryError("no memory for a forward pass")
        return torch.from_numpy(logits)

    def free(self) -> None:
        """Free the memory for the logits of steps."""
        self._logits = np.empty((0, self.n_out), np.float32)

    def _step_logits(self, n_rows: int, n_out: int) -> npt.NDArray[np.float32]:
        if self._logits.shape[0] < n_rows:
            self._logits = np.empty((max(n_rows, 2 * self._logits.shape[0]), n_out), np.float32)
        return self._logits[:n_rows]

    def _fingerprint(self) -> tuple[int, ...]:
        return tuple(x for p in self._parameters for x in (p.data_ptr(), p._version))

    def _rotary(self, n_positions: int) -> None:
        """Compute cosines and sines [positions, D] with the model's own module."""
        if self._angles is not None and self._angles[0].shape[0] >= n_positions:
            return
        self._angles = angles(self._model, max(256, 2 * n_positions))
        self._c.cosine, self._c.sine = (x.data_ptr() for x in self._angles)

    def _head_kind(self, weights: LlamaWeights) -> int:
        """The type of the head's products: logits are what its error counts for most, so integers
        have more bits there, except where the head is so large that they would take long.
        """
        if self.kind == _INT16:
            return _FP32
        n_all = sum(p.numel() for p in self._parameters)
        is_small = weights.head.numel() < _SMALL_HEAD * n_all
        return _INT16 if self.kind == _INT8 and is_small else self.kind

    @torch.no_grad()
    def _layer(self, layer: LayerWeights) -> _Layer:
        return _Layer(
            self._vector(layer.input_norm),
            self._panels(torch.cat(layer.qkv)),
            self._vector(torch.cat(layer.qkv_bias) if layer.qkv_bias else None),
            self._vector(layer.q_norm),
            self._vector(layer.k_norm),
            self._panels(layer.out),
            self._vector(layer.out_bias),
            self._vector(layer.mlp_norm),
            self._panels(layer.gate_up[0], layer.gate_up[1]),
            self._panels(layer.down),
            layer.window,
        )

    def _vector(self, weight: torch.Tensor | None) -> int | None:
        if weight is None:
            return None
        self._kept.append(weight.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    def _panels(
        self, weight: torch.Tensor, up: torch.Tensor | None = None, kind: int | None = None
    ) -> int:
        (rows, columns), kind = weight.shape, self.kind if kind is None else kind
        sources = [w.detach().float().contiguous() for w in (weight, up) if w is not None]
        out = torch.empty(self.library.glore_packed_size(rows, columns, int(up is not None), kind))
        second = sources[1].data_ptr() if up is not None else None
        if self.library.glore_pack(
            sources[0].data_ptr(), second, rows, columns, kind, out.data_ptr()
        ):
            raise MemoryError("no memory to lay out weights")
        self._kept.append(out)
        return out.data_ptr()
