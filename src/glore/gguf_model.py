"""A base model in one GGUF file, written as a plain Hugging Face folder (extra `gguf`).

transformers reads the file and takes its quantized weights apart. A GGUF file holds data and no
code. Its chat template is kept. A file with weights missing, or with more than transformers reads,
is refused.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from glore.config.plugins import is_installed
from glore.errors import ConfigError, ModelError, shown
from glore.model_folder import in_one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_gguf", "convert_gguf", "gguf_shapes"]

MAGIC = b"GGUF"


def check_gguf(path: str | Path) -> None:
    """Check that `path` is a GGUF file and that the package that reads it is there. Raises
    ModelError, ConfigError.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            head = stream.read(len(MAGIC))
    except OSError as error:
        raise ModelError(
            f"can't read base.model {shown(str(path))}: {error.strerror or error}; give the path "
            "of a GGUF file"
        ) from error
    if head != MAGIC:
        raise ModelError(
            f"base.model {shown(str(path))} is no GGUF file: it begins with {shown(head)}; fetch "
            "it again, or give the folder of a model"
        )
    if not is_installed("gguf"):
        raise ConfigError(
            f"base.model {shown(str(path))} needs the package gguf, which is not installed; pip "
            "install 'glore[gguf]'"
        )


def gguf_shapes(path: str | Path) -> dict[str, tuple[int, ...]] | None:
    """Name → shape of the weights in a GGUF file; None if it can't be read here."""
    try:
        check_gguf(path)
        from gguf import GGUFReader

        reader = GGUFReader(str(Path(path).expanduser()))
        return {
            str(tensor.name): tuple(int(axis) for axis in reversed(tensor.shape))
            for tensor in reader.tensors
        }
    except Exception:  # damaged, or no package: `check_gguf` and the conversion say so
        return None


def convert_gguf(path: str | Path, folder: Path, dtype: str) -> int:
    """Write the causal language model in a GGUF file as `folder`, in `dtype`. Returns its number of
    weights. Raises ModelError, ConfigError.
    """
    check_gguf(path)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from glore.model_weights import check_loaded
    from glore.models import quiet, save_model

    file = Path(path).expanduser()
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar asks no one
            tokenizer = AutoTokenizer.from_pretrained(**place)
            model, info = AutoModelForCausalLM.from_pretrained(
                **place, dtype=getattr(torch, dtype), output_loading_info=True
            )
    except Exception as error:
        raise ModelError(
            f"can't load a causal language model from {shown(str(path))}: {in_one_line(error)}; "
            "give a GGUF file of an architecture that transformers reads, or the model's folder"
        ) from error
    check_loaded(
        model,
        info["missing_keys"],
        info["unexpected_keys"],
        {},
        f"{shown(str(path))} ({type(model).__name__})",
        "causal language model",
        (),
    )
    _check_whole(path, model)
    # The weights are plain now. These entries would keep the model from being saved, and make
    # loaders look for the GGUF file again.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config.name_or_path = ""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    card = f"# base\n\nConverted from {file.name} (GGUF) by glore, in {dtype}.\n"
    save_model(model, tokenizer, folder, card)
    return int(model.num_parameters())


def _check_whole(path: str | Path, model: PreTrainedModel) -> None:
    """Refuse a model that lacks numbers of its file: transformers leaves out weights for which its
    own model has no place, and says nothing. Raises ModelError.
    """
    is_tied = bool(model.config.get_text_config().tie_word_embeddings)
    n_file = sum(
        math.prod(shape)
        for name, shape in (gguf_shapes(path) or {}).items()
        if not name.startswith("rope_") and not (is_tied and name == "output.weight")
    )
    n_over = n_file - int(model.num_parameters())
    if n_over > 0:
        raise ModelError(
            f"{shown(str(path))} holds {n_over:,} numbers more than {type(model).__name__} of "
            "transformers takes from it, so the model would be another one; give the model's "
            "folder in safetensors"
        )
