"""Calls of forward.c: tensors and arrays in, tensors out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.batch import Batch
from glore.engines.local.draw import DrawSettings, draw_each
from glore.engines.local.native.build import KINDS, KNOWN, Library

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from glore.config.engine import Quantization

__all__ = ["NativeModel", "attend_natively", "draw_natively"]

_ROPES = ("default", "linear", "llama3")
"""Frequencies that don't depend on the longest position of the batch."""
_FP32, _BF16, _INT16, _INT8 = range(4)
"""As in forward.c."""
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
        logits_RV.data_ptr(), row_C.ctypes.data, row_C.size, logits_RV.shape[1], *pointers
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
        config = model.config
        if config.model_type not in KNOWN or config.hidden_act != "silu":
            raise NotImplementedError(f"{config.model_type} models")
        if (getattr(config, "rope_parameters", None) or {}).get(
            "rope_type", "default"
        ) not in _ROPES:
            raise NotImplementedError("rotary positions that depend on the batch")
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
        self._base = model.base_model
        layers = list(self._base.get_submodule("layers").children())
        head = "lm_head" if _maybe(model, "lm_head.weight") is not None else "score"
        self._version, self._n_written = (
            self._fingerprint(),
            sum(p._version for p in self._parameters),
        )
        self._kept: list[torch.Tensor] = []
        heads, kv = config.num_attention_heads, config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.like = torch.empty(kv, size, dtype=torch.float16 if is_integer else torch.float32)
        """Keys of one token, for their shape and type."""
        self.n_layers = len(layers)
        self.n_out = model.get_parameter(f"{head}.weight").shape[0]
        self._layers = (_Layer * self.n_layers)(*map(self._layer, layers))
        self._c = _Model(
            *(
                self.n_layers,
                config.hidden_size,
                heads,
                kv,
                size,
                config.intermediate_size,
                self.n_out,
                self.kind,
            ),
            self._vector(self._base.get_parameter("embed_tokens.weight")),
            self._vector(self._base.get_parameter("norm.weight")),
            self._panels(
                model.get_parameter(f"{head}.weight"),
                kind={_INT16: _FP32, _INT8: _INT16}.get(self.kind, self.kind),
            ),
            self._vector(_maybe(model, f"{head}.bias")),
            *(None, None, self._layers, config.rms_norm_eps, size**-0.5),
        )
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None

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
        self, batch: Batch, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], n_threads: int
    ) -> torch.Tensor:
        """Logits [S, outputs] of the selected queries.

        `pairs`: keys and values of each layer, with the head size padded to 16.
        """
        self._rotary(int(batch.positions.max()) + 1)
        keys, values = (
            np.array([pair[side].data_ptr() for pair in pairs], np.uint64) for side in (0, 1)
        )
        logits = np.empty((batch.selected.size, self.n_out), np.float32)
        packed = _packed(batch, keys, values, logits)
        if self.library.glore_forward(ctypes.byref(self._c), ctypes.byref(packed), n_threads):
            raise MemoryError("no memory for a forward pass")
        return torch.from_numpy(logits)

    def _fingerprint(self) -> tuple[int, ...]:
        return tuple(x for p in self._parameters for x in (p.data_ptr(), p._version))

    @torch.no_grad()
    def _rotary(self, n_positions: int) -> None:
        """Compute cosines and sines [positions, D] with the model's own module."""
        if self._angles is not None and self._angles[0].shape[0] >= n_positions:
            return
        n_positions = max(256, 2 * n_positions)
        cos, sin = self._base.get_submodule("rotary_emb")(
            torch.zeros(1), position_ids=torch.arange(n_positions)[None]
        )
        self._angles = cos[0].float().contiguous(), sin[0].float().contiguous()
        self._c.cosine, self._c.sine = (x.data_ptr() for x in self._angles)

    @torch.no_grad()
    def _layer(self, layer: torch.nn.Module) -> _Layer:
        projections: list[torch.Tensor] = [
            layer.get_parameter(f"self_attn.{x}_proj.weight") for x in "qkv"
        ]
        biases = [b for x in "qkv" if (b := _maybe(layer, f"self_attn.{x}_proj.bias")) is not None]
        if _maybe(layer, "mlp.gate_proj.bias") is not None or len(biases) not in (0, 3):
            raise NotImplementedError("biases of this kind")
        window = getattr(layer.get_submodule("self_attn"), "sliding_window", None)
        if self._model.config.model_type == "mistral":
            window = self._model.config.sliding_window
        return _Layer(
            self._vector(layer.get_parameter("input_layernorm.weight")),
            self._panels(torch.cat(projections)),
            self._vector(torch.cat(biases) if biases else None),
            self._vector(_maybe(layer, "self_attn.q_norm.weight")),
            self._vector(_maybe(layer, "self_attn.k_norm.weight")),
            self._panels(layer.get_parameter("self_attn.o_proj.weight")),
            self._vector(_maybe(layer, "self_attn.o_proj.bias")),
            self._vector(layer.get_parameter("post_attention_layernorm.weight")),
            self._panels(
                layer.get_parameter("mlp.gate_proj.weight"),
                layer.get_parameter("mlp.up_proj.weight"),
            ),
            self._panels(
                layer.get_parameter("mlp.down_proj.weight"),
                kind=_INT16 if self.kind == _INT8 else self.kind,
            ),
            window or 0,
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


def _maybe(module: torch.nn.Module, name: str) -> torch.Tensor | None:
    """A parameter that not every model has."""
    try:
        return module.get_parameter(name)
    except AttributeError:
        return None
