"""Step classifiers of kinds for which transformers has no class of its own (Gemma 3, Granite,
OLMo 2 and others): the body of the language model and a linear head, as its other classes are.

Their folders are like all others, but only glore opens them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glore.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["is_made_here", "step_class"]


def step_class(config: PretrainedConfig) -> object:
    """What loads a step classifier with this config: `AutoModelForTokenClassification`, or a class
    for a kind that it doesn't know. Raises ModelError for a kind of which transformers has no
    language model either.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
        AutoModelForTokenClassification,
    )

    kind = type(config)
    if kind in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        return AutoModelForTokenClassification
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"transformers has no language model of the kind {config.model_type}, so no step "
            "classifier can be made of it; give another model"
        )
    language_model: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    return _made(kind, language_model)


def is_made_here(model: object) -> bool:
    """Whether this step classifier is of a class that transformers does not have."""
    return type(model).__module__ == __name__


def _made(kind: type, language_model: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class of step classifiers beside this class of language models with this config."""
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GenericForTokenClassification

    # All models of a family come from one class, which comes from the common one.
    family: type[PreTrainedModel] = next(
        c for c in language_model.__mro__ if PreTrainedModel in c.__bases__
    )
    return type(
        f"{language_model.__name__.partition('For')[0]}ForTokenClassification",
        (GenericForTokenClassification, family),
        {
            "__module__": __name__,
            "config_class": kind,
            "base_model_prefix": family.base_model_prefix,
        },
    )
