"""LoRA through peft (an extra): wraps a model before training and merges it before saving, so that
only the training needs peft.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from glore.config import LoraSettings
from glore.errors import ConfigError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["merge_lora", "wrap_lora"]

HEADS = ("score", "classifier")
"""Names of a token classifier's head in transformers."""


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
