"""LoRA through peft (an extra): wraps a model before training; then the adapter is merged into the
weights, or saved alone and merged when the model is opened.

A saved adapter is in peft's own format, beside the tokenizer that it was trained with and a note of
the model that it changes. Only its numbers are read back: the model is wrapped as for training, so
nothing in the folder chooses what code runs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from glore.adapter_folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_NOTE,
    adapter_base,
    is_own_adapter,
)
from glore.config import LoraSettings
from glore.config.plugins import is_installed
from glore.config.training import is_local
from glore.errors import ConfigError, ModelError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "apply_adapter",
    "check_bases",
    "merge_lora",
    "quantization_options",
    "save_adapter",
    "trained_dtype",
    "wrap_lora",
]

HEADS = ("score", "classifier")
"""Names of a token classifier's head in transformers."""
MAX_ADAPTERS = 8
"""How many adapters may lie one on the other."""
LISTS = ("target_modules", "exclude_modules", "trainable_token_indices", "modules_to_save")
"""Fields of peft's configuration that are saved and may be sets there."""
_PART = 1 << 16
_MAX_BYTES = 1 << 20


def wrap_lora(
    model: PreTrainedModel, settings: LoraSettings | None, bad_id: int, *, classifier: bool = False
) -> PreTrainedModel:
    """`model` with trainable low-rank adapters; unchanged for `None`.

    The embedding of `[BAD]` and a classifier's head are trained too. Raises ConfigError when peft
    is missing or finds none of the target modules.
    """
    if settings is None:
        return model
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise ConfigError(
            "lora needs peft, which is not installed; pip install 'glore[peft]', or set lora to "
            "null"
        ) from error
    targets = settings.target_modules
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=TaskType.TOKEN_CLS if classifier else TaskType.CAUSAL_LM,
        exclude_modules=list(HEADS) if classifier else None,  # a new head trains whole
        trainable_token_indices=[bad_id],
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # peft still asks transformers for a name it deprecates
            return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"lora does not fit this model: {shown(' '.join(str(error).split()), 200)}; look at "
            "lora.target_modules"
        ) from error


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapters merged into the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def quantization_options(device: str) -> dict[str, object]:
    """Arguments of `from_pretrained` that load the linear layers of a model in 4-bit NormalFloat,
    on `device`, but for heads. Raises ConfigError without bitsandbytes.
    """
    if not is_installed("bitsandbytes"):
        raise ConfigError(
            "lora.base nf4 needs bitsandbytes, which is not installed; pip install "
            "'glore[qlora]', or set lora.base to full"
        )
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "embed_out", *HEADS],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def save_adapter(model: PreTrainedModel, folder: Path, base: str | Path, target: Path) -> None:
    """Write the trained adapter of a wrapped model to `folder`, which will be `target`. `base`: the
    model that it was trained on; one beside `target` is named relative to it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        str(folder / ADAPTER_WEIGHTS),
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"].to_dict()
    name, _, revision = str(base).partition("@") if not is_local(str(base)) else (str(base), "", "")
    if is_local(str(base)):
        path = Path(base).expanduser().resolve()
        name = f"../{path.name}" if path.parent == target.parent.resolve() else str(path)
        _write(folder / BASE_NOTE, _note(path.parent if path.is_file() else path))
    else:
        _write(folder / BASE_NOTE, {})
    _write(
        folder / ADAPTER_CONFIG,
        {
            "peft_type": "LORA",
            "task_type": str(getattr(config["task_type"], "value", config["task_type"])),
            "base_model_name_or_path": name,
            "revision": revision or None,
            "r": config["r"],
            "lora_alpha": config["lora_alpha"],
            "lora_dropout": config["lora_dropout"],
            **{name: _plain(config[name]) for name in LISTS},
            "bias": "none",
            "inference_mode": True,
        },
    )
    whole = copy.deepcopy(model.config)
    if hasattr(whole, "quantization_config"):
        del whole.quantization_config
    whole.save_pretrained(str(folder))


def apply_adapter(
    model: PreTrainedModel, folder: Path, bad_id: int, *, classifier: bool
) -> PreTrainedModel:
    """`model`, the base with the vocabulary of the training, changed by the adapter in `folder`.
    Raises ModelError for an adapter that does not fit, ConfigError without peft.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    where = f"can't load the adapter in {shown(str(folder))}"
    settings = _settings(folder, where)
    try:
        weights = load_file(str(folder / ADAPTER_WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{where}: {shown(str(error), 120)}; train it again") from error
    if broken := [n for n, w in sorted(weights.items()) if not torch.isfinite(w).all()]:
        raise ModelError(
            f"{where}: it has weights that are not finite (NaN or infinity): {shown(broken[0])}; "
            "train it again"
        )
    wrapped = wrap_lora(model, settings, bad_id, classifier=classifier)
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in expected
        or name not in weights
        or expected[name].shape != weights[name].shape
    )
    if wrong:
        raise ModelError(
            f"{where}: it does not fit its base model at {shown(wrong[0], 80)}; give the base that "
            "it was trained on, or train it again"
        )
    set_peft_model_state_dict(wrapped, weights)
    return merge_lora(wrapped)


def check_bases(folder: Path) -> None:
    """Raise ModelError if a model below the adapter is missing or changed, or there are too many
    adapters, one on the other.
    """
    link, reference = folder, adapter_base(folder)
    for _ in range(MAX_ADAPTERS):
        if is_local(reference):
            _check_base_unchanged(link, Path(reference))
        if not is_own_adapter(Path(reference)):
            return
        link = Path(reference)
        reference = adapter_base(link)
    raise ModelError(
        f"can't load the adapter in {shown(str(folder))}: more than {MAX_ADAPTERS} adapters lie "
        "one on the other; merge them (docs/usage.md, Adapters)"
    )


def trained_dtype(folder: Path) -> str:
    """The type of the weights that the adapter in `folder` was trained with."""
    config = _read(folder / "config.json", f"can't load the adapter in {shown(str(folder))}")
    given = (config.get("dtype"), config.get("torch_dtype"))
    return next((str(dtype) for dtype in ("bfloat16", "float16") if dtype in given), "float32")


def _check_base_unchanged(folder: Path, base: Path) -> None:
    """Raise ModelError if the base of the adapter in `folder` is missing or another model now."""
    noted = _read(folder / BASE_NOTE, f"can't load the adapter in {shown(str(folder))}")
    if not noted:  # of the Hub
        return
    base = base.parent if base.is_file() else base
    found = _note(base)
    names = noted.keys() | found.keys()
    changed = sorted(name for name in names if noted.get(name) != found.get(name))
    if not base.is_dir() or changed:
        what = f"{changed[0]} is another file" if base.is_dir() else "it is not there"
        raise ModelError(
            f"the adapter in {shown(str(folder), 300)} changes the model {shown(str(base), 300)}, "
            f"and {what}; put that model back, or train the adapter again"
        )


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | tuple | list) else value


def _settings(folder: Path, where: str) -> LoraSettings:
    data = _read(folder / ADAPTER_CONFIG, where)
    try:
        return LoraSettings.model_validate(
            {
                "r": data.get("r"),
                "alpha": float(str(data.get("lora_alpha"))),
                "target_modules": data.get("target_modules"),
            }
        )
    except (ValidationError, ValueError) as error:
        raise ModelError(
            f"{where}: its {ADAPTER_CONFIG} is not as glore writes it; train it again"
        ) from error


def _note(folder: Path) -> dict[str, object]:
    """Sizes and parts of the files that make a model. Two models of one kind differ everywhere, so
    the ends of a file tell them apart without reading all of it.
    """
    note: dict[str, object] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix not in (".safetensors", ".bin") and path.name not in (
            "config.json",
            ADAPTER_CONFIG,
        ):
            continue
        size = path.stat().st_size
        with path.open("rb") as stream:
            ends = stream.read(_PART)
            stream.seek(max(0, size - _PART))
            ends += stream.read(_PART)
        note[path.name] = [size, hashlib.blake2b(ends, digest_size=16).hexdigest()]
    return note


def _read(path: Path, where: str) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            data = json.loads(stream.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{where}: its {path.name} can't be read ({error})") from error
    if not isinstance(data, dict):
        raise ModelError(f"{where}: its {path.name} holds no JSON object; train it again")
    return data


def _write(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
