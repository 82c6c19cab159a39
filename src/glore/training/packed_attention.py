"""Attention for training on a GPU, without a mask and without waiting for the device.

Padded rows go through torch's causal attention. Packed rows go through its variable-length kernel
(`torch.nn.attention.varlen`, flash attention), which gets the bounds of the rows and does not read
other rows' tokens. transformers itself asks the device at every forward pass whether rows are
packed, and the host waits for the answer; a packed batch gets a mask of T × T there.
Axes: B rows, T tokens, H heads, D head size, R packed rows.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from glore.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["attends_without_mask", "check_rows_apart", "row_bounds", "use_attention_without_mask"]

NAME = "glore_training"
_KNOWN = inspect.signature(varlen_attn).parameters
# torch 2.10 has `is_causal`, later ones `window_size`. Versions without `enable_gqa` take fewer key
# heads without it.
_CAUSAL: dict[str, Any] = (
    {"window_size": (-1, 0)} if "window_size" in _KNOWN else {"is_causal": True}
)
_CAUSAL |= {"enable_gqa": True} if "enable_gqa" in _KNOWN else {}
LAYERS = {"full_attention", "sliding_attention"}
"""Types of layers that are causal attention while no row is longer than the window."""


def attends_without_mask(
    model: PreTrainedModel, longest: int, packed: bool, dtype: torch.dtype
) -> bool:
    """Whether `use_attention_without_mask` computes on a GPU what the model's own attention does,
    for rows of at most `longest` tokens.

    `dtype`: of the products; the kernel for packed rows takes 16-bit types only.
    """
    config = model.config.get_text_config()
    if not (
        getattr(model, "_supports_attention_backend", False)
        and getattr(model, "_supports_sdpa", False)
    ):
        return False
    if any(
        getattr(config, name, None)
        for name in ("attention_dropout", "attn_pdrop", "attn_logit_softcapping")
    ):
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if not kinds <= LAYERS or (window is not None and window < longest):
        return False
    return not packed or (
        dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability() >= (8, 0)
    )


def use_attention_without_mask(model: PreTrainedModel) -> None:
    """Let the model use this module's attention.

    transformers builds no mask for an attention that has no mask function registered.
    """
    AttentionInterface.register(NAME, _attention)
    model.set_attn_implementation(NAME)


def _attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer. The output is (B, T, H, D)."""
    assert attention_mask is None, "transformers builds none for this name"
    added = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    assert dropout == 0.0 and not added, f"attends_without_mask was asked: {added}"  # noqa: PT018  # one question  # one question
    if cu_seq_lens_q is None:
        rows_BTHD, _none = sdpa_attention_forward(
            module, query_BHTD, key_BHTD, value_BHTD, None, scaling=scaling, is_causal=True
        )
        return rows_BTHD, None
    device = query_BHTD.device.type
    # Rotated queries and keys are float32 under autocast, which does not know this kernel.
    dtype = (
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value_BHTD.dtype
    )
    query_THD, key_THD, value_THD = (
        x[0].transpose(0, 1).to(dtype) for x in (query_BHTD, key_BHTD, value_BHTD)
    )
    return varlen(query_THD, key_THD, value_THD, cu_seq_lens_q, max_length_q, scaling).unsqueeze(
        0
    ), None


def varlen(
    query_THD: torch.Tensor,
    key_THD: torch.Tensor,
    value_THD: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scale: float | None,
) -> torch.Tensor:
    """Causal attention inside each row of a packed batch, (T, H, D).

    Keys and values may have fewer heads.
    """
    out_THD = varlen_attn(
        query_THD, key_THD, value_THD, bounds, bounds, longest, longest, scale=scale, **_CAUSAL
    )
    assert isinstance(out_THD, torch.Tensor)
    return out_THD


@torch.no_grad()
def check_rows_apart(model: PreTrainedModel, bf16: bool, setting: str) -> None:
    """Raise ConfigError if a packed row's output depends on the row before it.

    Such a model would be trained wrong without a sign. `setting`: the setting that packs rows.
    """
    device = next(model.parameters()).device
    n, vocabulary = 12, model.config.get_text_config().vocab_size
    ids_n = torch.arange(n, device=device)
    first, other, second = (
        (ids_n * step + start) % vocabulary for start, step in ((3, 1), (5, 3), (7, 2))
    )
    positions = torch.arange(n, device=device).repeat(2)[None]
    rows: dict[str, Any] = {
        "position_ids": positions,
        **row_bounds(torch.tensor([0, n, 2 * n], dtype=torch.int32, device=device), n),
    }
    was_training = model.training
    model.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        after_first, after_other = (
            model(input_ids=torch.cat([before, second])[None], use_cache=False, **rows)
            .logits[0, n:]
            .float()
            for before in (first, other)
        )
    model.train(was_training)
    # NaN passes here; the training's first loss will show it.
    if bool(((after_first - after_other).abs() > 1e-3 * after_first.abs().max()).any()):
        raise ConfigError(
            f"{setting} packs rows, and {type(model).__name__} does not keep packed rows apart; "
            "set it to 0, and batch_size"
        )


def row_bounds(bounds: torch.Tensor, longest: int) -> dict[str, Any]:
    """Arguments of a model's forward that pass the bounds of packed rows to the attention, by
    transformers' names (`FlashAttentionKwargs`).
    """
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
