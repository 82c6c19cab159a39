"""Models and tokenizers on disk: load and save. Shared by sampling and training.

Loading is strict. `from_pretrained` would draw a missing head at random; here, weights that are
missing, left over, of integer type or not finite are refused. No code and no pickle of the folder
is run (`glore.model_folder`). Every failure is a ModelError in one line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from glore.adapter_folder import ADAPTER_CONFIG, adapter_base, is_own_adapter
from glore.devices import pick_device
from glore.digests import write_digests
from glore.errors import ConfigError, ModelError, shown
from glore.files import replacing_folder
from glore.model_folder import in_one_line, open_folder, own_code, read_json
from glore.model_weights import check_headers, check_loaded, weight_headers
from glore.own_process import variable_set
from glore.step_classes import step_class
from glore.step_head import BINARY, CLASSES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "STEP_LABELS",
    "load_causal_lm",
    "load_step_body",
    "load_step_model",
    "load_tokenizer",
    "merged_folder",
    "name_classes",
    "new_step_model",
    "quiet",
    "save_model",
]

STEP_LABELS = BINARY.names
"""Classes of a step model (method 2)."""
TOKENIZERS = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")
"""Names of a tokenizer's files."""
DTYPES = ("float32", "bfloat16", "float16")
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer at `path` (a folder, a Hub name or NAME@REVISION). Raises ModelError, also for
    a tokenizer without an end-of-text token.
    """
    from transformers import AutoTokenizer

    found = open_folder(path, "tokenizer", weights=False)
    code = own_code(found, "tokenizer")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(found.name, **found.options)
    except Exception as error:
        if not any(file for name in TOKENIZERS for file in found.folder.glob(name)):
            raise ModelError(
                f"the model at {shown(str(path))} has no tokenizer; copy the tokenizer's files "
                "(tokenizer.json, tokenizer_config.json) there from the model that it was made from"
            ) from error
        raise _failed("tokenizer", path, error, code) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer at {shown(str(path))} has no eos_token, so completions could not end; "
            "set one in its tokenizer_config.json"
        )
    tokenizer.init_kwargs.pop(
        "auto_map", None
    )  # or a model made from this one would ask for that code again
    return tokenizer


def load_causal_lm(
    path: str | Path,
    dtype: str = "float32",
    device: str = "cpu",
    options: Mapping[str, object] = NO_OPTIONS,
) -> PreTrainedModel:
    """The causal language model at `path`, in eval mode on `device`. `options`: more arguments of
    `from_pretrained`, which then places the model itself. Raises ModelError.
    """
    from transformers import AutoModelForCausalLM

    if is_own_adapter(Path(path)) and not options:
        model = _load_adapted(Path(path), dtype, is_step=False)
    else:
        with merged_folder(path) as folder:
            model = _load(
                AutoModelForCausalLM, "causal language model", folder, dtype, options=options
            )
    return model.eval() if options else model.to(pick_device(device)).eval()


def load_step_model(
    path: str | Path, dtype: str = "float32", device: str = "cpu"
) -> PreTrainedModel:
    """A trained step classifier, in eval mode on `device`: logits (B, T, C), class 0 bad, 1 good,
    and perhaps 2 neutral. Raises ModelError.
    """
    from transformers import AutoModelForTokenClassification

    if is_own_adapter(Path(path)):
        model = _load_adapted(Path(path), dtype, is_step=True)
    else:
        model = _load(AutoModelForTokenClassification, "step classifier", path, dtype)
    if not _known_classes(model):
        raise ModelError(
            f"the step classifier at {shown(str(path))} has {model.config.num_labels} classes, not "
            "2 (bad, good) or 3 (bad, good, neutral); train it with glore"
        )
    return model.to(pick_device(device)).eval()


def _known_classes(model: PreTrainedModel) -> bool:
    """Whether a head has two classes, of whatever names, or the three of ours."""
    names = model.config.id2label
    return len(names) == len(STEP_LABELS) or names == dict(enumerate(CLASSES))


def name_classes(config: PretrainedConfig, n_classes: int) -> None:
    """Give the config of a step classifier its classes: bad, good, and with three neutral."""
    config.num_labels = n_classes
    config.id2label = dict(enumerate(CLASSES[:n_classes]))
    config.label2id = {name: i for i, name in config.id2label.items()}


def new_step_model(
    base: str | Path,
    dtype: str = "float32",
    options: Mapping[str, object] = NO_OPTIONS,
    n_classes: int = len(STEP_LABELS),
) -> PreTrainedModel:
    """A step classifier with the weights of `base`, a causal LM or a step classifier of as many
    classes (2, or 3 with neutral steps). A causal LM gets a new head, drawn from torch's global
    generator: seed it first. `options` are as in `load_causal_lm`. Raises ModelError.
    """
    from transformers import AutoModelForTokenClassification

    with merged_folder(base) as folder:
        return _load(
            AutoModelForTokenClassification,
            "step classifier",
            folder,
            dtype,
            fresh=("score.", "classifier."),
            options=options,
            n_classes=n_classes,
        )


@contextlib.contextmanager
def merged_folder(path: str | Path) -> Iterator[str | Path]:
    """The model at `path` as a folder of whole weights, for what can't read an adapter. An adapter
    is merged into a folder beside it, which is removed at the end of the block; any other model is
    where it is. Raises ModelError.
    """
    if not is_own_adapter(Path(path)):
        yield path
        return
    from glore.lora import trained_dtype

    folder = Path(path)
    place = folder.parent if os.access(folder.parent, os.W_OK) else Path(tempfile.gettempdir())
    merged = place / f".{folder.name}-{uuid.uuid4().hex[:8]}.{os.getpid()}.tmp"
    try:
        task = read_json(folder / ADAPTER_CONFIG, str(folder)).get("task_type")
        load = load_step_model if task == "TOKEN_CLS" else load_causal_lm
        save_model(load(folder, trained_dtype(folder)), load_tokenizer(folder), merged, "")
        yield merged
    finally:
        shutil.rmtree(merged, ignore_errors=True)


def _load_adapted(path: Path, dtype: str, *, is_step: bool) -> PreTrainedModel:
    """The base of the adapter at `path`, loaded as for its training and changed by the adapter:
    bit for bit the model that the training would have saved merged, in `dtype`. Raises ModelError.
    """
    import torch

    from glore.lora import apply_adapter, check_bases, trained_dtype
    from glore.tokenization import prepare_tokenizer

    what = "step classifier" if is_step else "causal language model"
    folder = open_folder(path, what, weights=False).folder
    check_bases(folder)
    tokenizer, base, trained_in = (
        load_tokenizer(folder),
        adapter_base(folder),
        trained_dtype(folder),
    )
    # New heads and adapters are drawn, and then replaced. What the caller draws stays the same.
    with torch.random.fork_rng(devices=[]):
        if is_step:
            names = read_json(folder / "config.json", str(folder)).get("id2label")
            n_classes = len(names) if isinstance(names, dict) else len(STEP_LABELS)
            model = new_step_model(base, trained_in, n_classes=n_classes)
        else:
            model = load_causal_lm(base, trained_in)
        bad_id = prepare_tokenizer(tokenizer, model)
        merged = apply_adapter(model, folder, bad_id, classifier=is_step)
    return merged.to(getattr(torch, dtype))


def load_step_body(
    path: str | Path, dtype: str = "float32", others: tuple[str, ...] = ()
) -> PreTrainedModel:
    """A step classifier whose head the caller sets: its weights at `path` begin with one of
    `others`. Raises ModelError.
    """
    from transformers import AutoModelForTokenClassification

    return _load(
        AutoModelForTokenClassification,
        "reward model",
        path,
        dtype,
        fresh=("score.", "classifier."),
        others=others,
    )


def _load(
    kind: object,
    what: str,
    path: str | Path,
    dtype: str,
    fresh: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    options: Mapping[str, object] = NO_OPTIONS,
    n_classes: int = len(STEP_LABELS),
) -> PreTrainedModel:
    """`kind.from_pretrained`, but weights may be missing only if their name starts with one of
    `fresh` (a head of `n_classes`), and left over only if it starts with one of `others`.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForTokenClassification

    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}")
    found = open_folder(path, what)
    where = f"can't load a {what} from {shown(str(path))}"
    code = own_code(found, what)
    with quiet():
        try:
            headers = weight_headers(found, where)
            check_headers(found.config, headers, where)
            config = AutoConfig.from_pretrained(found.name, **found.options)
            if hasattr(config, "auto_map"):
                del config.auto_map  # or a model made from this one would ask for that code again
            # The machine decides how attention is computed. A file may name a kernel, which is code
            # from the Hub.
            config._attn_implementation = config._experts_implementation = None
            if getattr(config, "attn_logit_softcapping", None):
                # Some releases of transformers choose torch's attention, which ignores the softcap.
                config._attn_implementation = "eager"
            if kind is AutoModelForTokenClassification:
                kind = step_class(config)
            if fresh:
                name_classes(config, n_classes)
                config.classifier_dropout = 0.0
            with _in_this_thread():
                model, info = kind.from_pretrained(  # type: ignore[attr-defined]  # an Auto class, untyped here
                    found.name,
                    config=config,
                    dtype=getattr(torch, dtype),
                    output_loading_info=True,
                    **found.weight_options,
                    **options,
                )
        except ModelError:
            raise
        except SafetensorError as error:
            raise ModelError(
                f"{where}: its weights are damaged or cut short ({in_one_line(error)}); delete "
                "that folder, then make the model again (glore run with the run's config.yaml) "
                "or fetch it again"
            ) from error
        except Exception as error:
            raise _failed(what, path, error, code) from error
    check_loaded(
        model,
        info["missing_keys"],
        [key for key in info["unexpected_keys"] if not key.startswith(others or ("\0",))],
        headers,
        f"{shown(str(path))} ({', '.join(map(str, config.architectures or ['unknown']))})",
        what,
        fresh,
    )
    return model


def _in_this_thread() -> contextlib.AbstractContextManager[None]:
    """transformers reads weights in this thread alone inside the block.

    What other threads allocate stays with them after it is freed: the C library can't give back
    the ends of their arenas (60 MB of a model of 101 MB in bfloat16).
    """
    return variable_set("HF_DEACTIVATE_ASYNC_LOAD", "1")


def _failed(what: str, path: str | Path, error: Exception, code: Sequence[str]) -> ModelError:
    """The error for a folder that transformers can't load. `code`: its own code, by name."""
    said = in_one_line(error)
    if "ignore_mismatched_sizes" in said:
        said = (
            "its config.json and its weights have different sizes; "
            "give a config.json and weights of one model"
        )
    if code:
        said = (
            f"it needs code of its own ({', '.join(code[:3])}), and glore runs no such code; "
            f"give a model that transformers knows ({said})"
        )
    return ModelError(f"can't load a {what} from {shown(str(path))}: {said}")


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    card: str,
    notes: Mapping[str, bytes] = MappingProxyType({}),
    adapter_of: str | Path | None = None,
) -> None:
    """Write safetensors, tokenizer, the card (README.md) and `notes` (file name → content) as
    `folder`, which is replaced whole if it exists. `adapter_of`: the base of a wrapped model, of
    which the adapter alone is saved. Raises ModelError when the disk refuses.
    """
    from glore.lora import save_adapter

    try:
        with replacing_folder(folder) as temporary:
            with quiet():
                if adapter_of is None:
                    model.save_pretrained(str(temporary))
                else:
                    save_adapter(model, temporary, adapter_of, folder)
                tokenizer.save_pretrained(str(temporary))
            (temporary / "README.md").write_text(card, encoding="utf-8")
            for name, content in notes.items():
                (temporary / name).write_bytes(content)
            write_digests(temporary)
    except Exception as error:
        raise ModelError(
            f"can't write the model to {folder}: {in_one_line(error)}; free some space or choose "
            "another run folder, then run again"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no load reports from transformers inside the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
