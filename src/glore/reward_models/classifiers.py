"""A reward model of any layout as a token classifier: 0 = bad, 1 = good, and perhaps 2 = neutral.

That is what scorers read, whatever the layout: a language model that says `+` or `-` has two rows
of its head that matter (three, if it says neutral too); a value head v is the two classes (0, v),
since sigmoid(v) is the softmax of these. So all layouts share the prefix tree and the fast
backends. No code of a folder is run: Qwen's two-layer head is written out here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from glore.adapter_folder import is_own_adapter
from glore.devices import pick_device
from glore.errors import ModelError, shown
from glore.model_folder import ModelFolder, open_folder
from glore.model_weights import weight_headers, weights_under
from glore.models import (
    load_causal_lm,
    load_step_body,
    load_step_model,
    name_classes,
)
from glore.reward_models.heads import HEADS, head_prefix
from glore.reward_models.layouts import noted_head
from glore.step_layouts.whole_texts import sign_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SIGNED", "load_classifier"]

SIGNED = ("math_shepherd", "rlhflow")
"""Layouts of language models that say `+` or `-`."""
_ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Largest relative difference of two ways to the same logits."""


def load_classifier(
    path: str | Path,
    layout: str,
    tokenizer: PreTrainedTokenizerBase,
    dtype: str = "float32",
    device: str = "cpu",
) -> PreTrainedModel:
    """The reward model at `path` as a token classifier in eval mode on `device`: logits (B, T, C).

    The names of its weights tell its head, `step_layout.json` the label tokens of a language model
    of ours. `layout`: a key of `glore.reward_models.layouts.LAYOUTS`, for the signs that others'
    language models say. Raises ModelError.
    """
    where = f"can't load a reward model from {shown(str(path))}"
    is_adapter = is_own_adapter(Path(path))
    found = open_folder(path, "reward model", weights=not is_adapter)
    head = noted_head(found.folder, where)
    if head.says_tokens:
        language_model = load_causal_lm(path, dtype)
        model = _from_language_model(language_model, head.token_ids(tokenizer), str(path))
        return model.to(pick_device(device)).eval()
    if is_adapter:
        return load_step_model(path, dtype, device)
    names = weight_headers(found, where).keys()
    prefix = head_prefix(names)
    if prefix is not None:
        model = _with_head(path, dtype, prefix)
    elif layout in SIGNED and not any(
        name in names for name in ("score.weight", "classifier.weight")
    ):
        good, bad = sign_tokens(tokenizer, layout)
        model = _from_language_model(load_causal_lm(path, dtype), (bad, good), str(path))
    else:
        model = load_step_model(path, dtype)
    return model.to(pick_device(device)).eval()


def _with_head(path: str | Path, dtype: str, prefix: str) -> PreTrainedModel:
    """The backbone at `path` with the head whose weights begin with `prefix`."""
    found = open_folder(path, "reward model")
    model = load_step_body(path, dtype, others=(prefix, "lm_head."))
    size = model.config.get_text_config().hidden_size
    weights = _head_weights(found, path, prefix, size)
    head = _mlp(weights, size) if prefix == "score." else _value_as_classes(weights, size)
    model.score = head.to(next(model.parameters()).dtype)
    return model


def _head_weights(
    found: ModelFolder, path: str | Path, prefix: str, size: int
) -> dict[str, torch.Tensor]:
    """The head's weights by the rest of their names, checked."""
    where, names = f"can't load a reward model from {shown(str(path))}", HEADS[prefix]
    weights = weights_under(found, prefix, where)
    if weights.keys() != set(names):
        wrong = sorted(weights.keys() ^ set(names))[0]
        has = "lacks" if wrong in names else "has more than the head's weights:"
        raise ModelError(f"{where}: it {has} {shown(prefix + wrong)}; give the whole checkpoint")
    shapes = {"0.weight": (size, size), "0.bias": (size,), "2.weight": (2, size), "2.bias": (2,)}
    shapes |= {"summary.weight": (1, size), "summary.bias": (1,)}
    for name, weight in weights.items():
        if tuple(weight.shape) != shapes[name] or not weight.is_floating_point():
            raise ModelError(
                f"{where}: {prefix}{name} is {weight.dtype} of shape {tuple(weight.shape)}, not "
                f"floats of shape {shapes[name]}; give the whole checkpoint of one model"
            )
        if not torch.isfinite(weight).all():
            raise ModelError(
                f"{where}: {prefix}{name} is not finite (NaN or infinity); give another copy"
            )
    return weights


def _mlp(weights: dict[str, torch.Tensor], size: int) -> nn.Module:
    """Qwen's head: linear, ReLU, linear."""
    head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
    head.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return head


def _value_as_classes(weights: dict[str, torch.Tensor], size: int) -> nn.Module:
    """A value head as two classes: the logit of "bad" is 0."""
    head = nn.Linear(size, 2)
    with torch.no_grad():
        for parameter, name in ((head.weight, "summary.weight"), (head.bias, "summary.bias")):
            parameter[0] = 0.0
            parameter[1] = weights[name][0].float()
    return head


def _from_language_model(
    language_model: PreTrainedModel, rows: tuple[int, ...], path: str
) -> PreTrainedModel:
    """A classifier of the model's body and these rows of its head, one for each class, checked on a
    few tokens: a model may do more to its logits.
    """
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(language_model.config)
    name_classes(config, len(rows))
    try:
        with torch.device("meta"):
            model = AutoModelForTokenClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"can't read the language model at {shown(path)} as a reward model: transformers has "
            f"no token classifier of its kind ({type(language_model).__name__})"
        ) from error
    lm_head = language_model.get_output_embeddings()
    setattr(model, model.base_model_prefix, language_model.base_model)
    name = next(
        name
        for name, module in model.named_children()
        if isinstance(module, nn.Linear) and module.out_features == len(rows)
    )
    head = nn.Linear(lm_head.weight.shape[1], len(rows), dtype=lm_head.weight.dtype)
    with torch.no_grad():
        chosen = list(rows)
        head.weight.copy_(lm_head.weight[chosen])
        bias = getattr(lm_head, "bias", None)
        head.bias.zero_() if bias is None else head.bias.copy_(bias[chosen])
    setattr(model, name, head)
    _check_same(language_model, model.eval(), chosen, path)
    return model


@torch.inference_mode()
def _check_same(
    language_model: PreTrainedModel, classifier: PreTrainedModel, rows: list[int], path: str
) -> None:
    n_vocab = language_model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(3, 11)[None] % n_vocab
    expected = language_model(input_ids=ids, use_cache=False).logits[0][:, rows].float()
    got = classifier(input_ids=ids, use_cache=False).logits[0].float()
    limit = _ROUNDING[next(classifier.parameters()).dtype] * (1 + float(expected.abs().max()))
    if not float((got - expected).abs().max()) <= limit:
        raise ModelError(
            f"can't read the language model at {shown(path)} as a reward model: its logits are "
            "more than a linear head (softcapping or scaling), which this layout does not allow"
        )
