"""A model's weights: their headers, checked before loading; the loaded model, checked after.

Weights that are missing, left over, of integer type or not finite are refused in one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glore.digests import is_inside
from glore.errors import ModelError, printable, shown
from glore.model_folder import LOOPED, PICKLES, SAFE, SAFE_INDEX, ModelFolder, read_json, sizes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Headers", "check_headers", "check_loaded", "weight_headers", "weights_under"]

Headers = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of a weight → its type, as safetensors names it, and its shape."""

FLOATS = ("F64", "F32", "F16", "BF16")
_SMALL = 1 << 20
"""Sizes up to this one are harmless, whatever the weights hold."""


def weight_headers(found: ModelFolder, where: str) -> Headers:
    """Types and shapes of all weights, read from the headers of their files. Raises ModelError and
    SafetensorError.
    """
    names = _weight_files(found, where)
    read = _pickle_header if found.pickle else _safe_header
    return {key: header for name in names for key, header in read(found.folder / name)}


def weights_under(found: ModelFolder, prefix: str, where: str) -> dict[str, torch.Tensor]:
    """The weights whose names begin with `prefix`, by the rest of their names; from safetensors
    only. Raises ModelError and SafetensorError.
    """
    from safetensors import safe_open

    weights = {}
    for name in _weight_files(found, where):
        with safe_open(str(found.folder / name), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  # no mapping
                if key.startswith(prefix):
                    weights[key.removeprefix(prefix)] = file.get_tensor(key)
    return weights


def _weight_files(found: ModelFolder, where: str) -> list[str]:
    """The names of the files of weights, from the index if there is one."""
    one, index = PICKLES if found.pickle else (SAFE, SAFE_INDEX)
    names = [one]
    if not (found.folder / one).exists():
        given = read_json(found.folder / index, where).get("weight_map")
        names = sorted({str(name) for name in given.values()}) if isinstance(given, dict) else []
        if wrong := [
            name
            for name in names
            if not (is_inside(name) and Path(name).suffix == Path(one).suffix)
        ]:
            raise ModelError(
                f"{where}: its {index} names the file {shown(wrong[0])}, which is no "
                f"{Path(one).suffix} file in the folder; copy the whole folder again"
            )
    return names


def _safe_header(path: Path) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # no mapping
            part = file.get_slice(key)
            yield key, (str(part.get_dtype()), tuple(part.get_shape()))


def _pickle_header(path: Path) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    import torch

    for key, value in torch.load(path, map_location="meta", weights_only=True).items():
        yield key, ("F32" if value.is_floating_point() else str(value.dtype), tuple(value.shape))


def check_headers(config: Mapping[str, object], headers: Headers, where: str) -> None:
    """Refuse a config.json with sizes that the weights can't have."""
    most = max(_SMALL, sum(math.prod(shape) for _, shape in headers.values()))
    layers = max(64, len(headers))
    for key, value in sizes(config):
        limit = layers if LOOPED.fullmatch(key) and key != "num_labels" else most
        if value > limit and not key.endswith(("positions", "position_embeddings", "ctx")):
            raise ModelError(
                f"{where}: its config.json sets {key} to {value:,}, but its weights are "
                f"{len(headers):,} tensors of "
                f"{sum(math.prod(shape) for _, shape in headers.values()):,} numbers in all; "
                "correct the file or give the right weights"
            )


def check_loaded(
    model: PreTrainedModel,
    missing: Iterable[str],
    left: Iterable[str],
    headers: Headers,
    who: str,
    what: str,
    fresh: tuple[str, ...],
) -> None:
    """Refuse a loaded model whose weights are missing, left over, of integer type or not finite.

    `missing`, `left`: as transformers reports them; `who`, `what`: the model and its kind, for
    messages; `fresh`: prefixes of names that may be missing. Raises ModelError.
    """
    import torch

    def refuse(names: list[str], why: str) -> None:
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise ModelError(f"{who} {why.format(printable(names[0]) + more)}")

    refuse(
        sorted(name for name in missing if not name.startswith(fresh or ("\0",))),
        f"is no {what}: it has no weights for {{}}",
    )
    over = sorted(name for name in left if not _is_constant(name, headers))
    if over and fresh:
        heads, n_vocab = _language_heads(model.config), model.get_input_embeddings().weight.shape[0]
        # Files may keep an older name of the head (GPT-NeoX: embed_out).
        over = [
            name
            for name in over
            if name not in heads
            and ("." not in name or headers.get(name, ("", ()))[1][:1] != (n_vocab,))
        ]
    refuse(
        over,
        f"is no {what}, or not only that: its files hold more weights: {{}}; give the model that "
        "its config.json describes",
    )
    buffers = tuple(name for name, _ in model.named_buffers())
    odd = sorted(
        n
        for n, (kind, _) in headers.items()
        if kind not in FLOATS and not _is_constant(n, headers) and not n.endswith(buffers)
    )
    kind = headers[odd[0]][0] if odd else ""
    refuse(
        odd,
        f"has weights of type {kind}: {{}}; weights must be floats ({', '.join(FLOATS)}), so give "
        "the model without quantisation",
    )
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    refuse(
        broken,
        "has weights that are not finite (NaN or infinity): {}; give another copy, or train it "
        "again",
    )


def _is_constant(name: str, headers: Headers) -> bool:
    """True for a table that older releases of transformers saved and newer ones compute. Attention
    masks have four axes.
    """
    shapes = [shape for key, (_, shape) in headers.items() if key.endswith(name)]
    is_mask = name.endswith(("attn.bias", "attention.bias")) and all(
        len(shape) == 4 for shape in shapes
    )
    return is_mask or name.endswith(
        ("inv_freq", "masked_bias", "position_ids", "num_batches_tracked")
    )


def _language_heads(config: PreTrainedConfig) -> set[str]:
    """The weights that a causal language model of this kind has besides its body."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError:  # no language model of this kind
        return set()
    return {
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if not name.startswith(f"{model.base_model_prefix}.")
    }
