"""Checks of the settings before the first stage starts, and in a dry run.

A missing GPU, package or tokenizer is reported here, not after days of training. The checks use no
network and read no weights. They load torch only for a setting that can't be judged without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from glore.chat_template import prompt_layout
from glore.config import (
    HttpEngineSettings,
    RunConfig,
    StoriesTaskSettings,
    TorchEngineSettings,
    TrainSettings,
)
from glore.config.engine import Quantization
from glore.config.plugins import imported, is_installed
from glore.config.training import is_local
from glore.errors import ConfigError, EngineError, shown
from glore.prompts import solve_segments
from glore.stages.workload import n_pieces
from glore.tasks.open import open_task
from glore.training.launch_command import check_launch
from glore.training.trackers import check_trackers

if TYPE_CHECKING:
    from glore.model_folder import ModelFolder

__all__ = ["base_folder", "check_base", "check_engine", "check_prompt", "check_training"]

LLAMA_LAYERS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "embed_tokens",
    "lm_head",
)
"""Names of the layers with weights to adapt in a base model trained from nothing."""


def check_base(config: RunConfig) -> None:
    """Check the folder of the base model, its tokenizer included. A Hub name is not looked up.
    Raises GloreError.
    """
    if config.base.is_gguf:
        from glore.gguf_model import check_gguf

        check_gguf(str(config.base.model))
    if base_folder(config) is not None:
        from glore.models import load_tokenizer

        load_tokenizer(str(config.base.reference))
    if config.base.model is None and isinstance(config.task, StoriesTaskSettings):
        _check_lengths(config)


def check_training(section: str) -> Callable[[RunConfig], None]:
    """A check that this machine can carry out the training with the settings at `section`."""

    def check(config: RunConfig) -> None:
        _check_training(config, section)

    return check


def _check_lengths(config: RunConfig) -> None:
    """Check that stories fit into the context of a base trained from nothing, and that at least one
    worked solution fits into a row of fine-tuning.

    A token spans at most one piece of text, so the number of pieces is a lower bound of the tokens.
    """
    task, context = open_task(config.task, config.seed), config.base.scratch.max_positions
    longest = max(
        (_least_tokens(solve_segments(p.question)) for p in task.problems("test")), default=0
    )
    if longest >= context:
        raise ConfigError(
            f"base.scratch.max_positions: {context} tokens leave no room for an answer to a "
            f"question of at least {longest} tokens, which the task has; raise it, or choose "
            "shorter questions"
        )
    most = config.student.sft.max_length
    if config.student.bootstrap == "sft" and most < longest:
        worked = [
            (p.question, p.solution) for p in task.problems("train") if p.solution is not None
        ]
        shortest = min((_least_tokens(solve_segments(*pair)) for pair in worked), default=0)
        if shortest > most:
            raise ConfigError(
                f"student.sft.max_length: {most} tokens exclude every worked solution (the "
                f"shortest has at least {shortest} tokens with its question); raise it"
            )


def _least_tokens(segments: Iterable[str]) -> int:
    return sum(map(n_pieces, segments))


def _check_training(config: RunConfig, section: str) -> None:
    settings = functools.reduce(getattr, section.split("."), config)
    assert isinstance(settings, TrainSettings)
    _check_device(config)
    if section != "base.scratch.train":
        check_launch(config.launch, settings)
    if settings.lora is not None:
        if not is_installed("peft"):
            raise ConfigError(
                f"{section}.lora needs peft, which is not installed; pip install 'glore[peft]', or "
                "set it to null"
            )
        if settings.lora.base == "nf4" and not is_installed("bitsandbytes"):
            raise ConfigError(
                f"{section}.lora.base nf4 needs bitsandbytes, which is not installed; pip install "
                "'glore[qlora]', or set it to full"
            )
        _check_lora(settings.lora.target_modules, config, section)
    check_trackers(settings.report_to, section)
    if config.track != "none" and not is_installed(config.track):
        raise ConfigError(
            f"track: {config.track} is not installed here; pip install 'glore[{config.track}]', or "
            "set it to none"
        )


def _check_lora(targets: str | Collection[str], config: RunConfig, section: str) -> None:
    """Each target is the end of a layer's name. Where the base is a name on the Hub, its layers are
    not known yet.
    """
    layers = _layers(config)
    if isinstance(targets, str) or layers is None:
        return
    if section.startswith("reward."):
        layers = {name for name in layers if name.split(".")[-1] != "lm_head"}
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = ", ".join(sorted({name.split(".")[-1] for name in layers}))
            raise ConfigError(
                f"{section}.lora.target_modules: the base model has no layer {shown(target, 60)}; "
                f"its layers are {shown(known, 300)}, or write all-linear"
            )


def _layers(config: RunConfig) -> set[str] | None:
    """Names of the base model's layers with a matrix of weights; none: not known here."""
    if config.base.model is None:
        return set(LLAMA_LAYERS)
    found = base_folder(config)
    if found is None:
        return None
    from glore.model_weights import weight_headers

    headers = weight_headers(found, f"can't load {shown(config.base.model)}")
    ends = ".weight"
    # Tied to the embeddings, the head is in no file, and yet a layer.
    return {
        "lm_head",
        *(
            key.removesuffix(ends)
            for key, (_, shape) in headers.items()
            if key.endswith(ends) and len(shape) == 2
        ),
    }


def check_prompt(config: RunConfig) -> None:
    """The base model has a chat template where prompts are a chat, as far as it is known here."""
    settings = config.prompt
    if config.base.model is None and (settings.style, settings.steps) != ("plain", "line"):
        raise ConfigError(
            f"prompt.style {settings.style}, prompt.steps {settings.steps}: a base model trained "
            "from nothing learns plain prompts and steps that are lines; set plain and line, or "
            "set base.model"
        )
    if settings.steps != "line" and isinstance(config.task, StoriesTaskSettings):
        raise ConfigError(
            f"prompt.steps {settings.steps}: the truth of stories is known line by line; set "
            "prompt.steps=line or choose another task"
        )
    if settings.style == "chat":
        sampler = config.engine.sampler
        if isinstance(sampler, HttpEngineSettings) and sampler.prompt == "text":
            raise ConfigError(
                "engine.prompt text: a server would take what a question spells of control tokens "
                "for such tokens, and put a BOS before the chat; set engine.prompt=tokens"
            )
        if base_folder(config) is not None:
            prompt_layout(settings, str(config.base.reference))


def check_engine(config: RunConfig) -> None:
    """The engine's package, key and device are there. Its server is not asked: it may be started
    later.
    """
    engine = config.engine
    _check_device(config)
    if engine.checker is not None:
        imported(engine.checker)(engine)
    if isinstance(engine.sampler, HttpEngineSettings) and not engine.sampler.extensions:
        _check_no_top_k(config)
    if isinstance(engine, TorchEngineSettings) and engine.quantization != "none":
        _check_quantization(config, engine.quantization)


def _check_no_top_k(config: RunConfig) -> None:
    sections = {
        "student.ei": config.student.ei,
        "reward": config.reward,
        "labels": config.labels,
        "evaluation": config.evaluation,
    }
    for path, section in sections.items():
        if section.top_k:
            raise ConfigError(
                f"{path}.top_k: {section.top_k} is sent with engine.extensions=true only, since it "
                "is not OpenAI's; set that, or set top_k to 0"
            )


def _check_quantization(config: RunConfig, kind: Quantization) -> None:
    from glore.devices import pick_device
    from glore.engines.local.native.build import can_quantize, no_quantization

    if pick_device(config.engine.device) != "cpu":
        raise EngineError(
            f"engine.quantization {kind} is for a CPU, and engine.device={config.engine.device} "
            "takes the GPU here; "
            "set engine.device=cpu"
        )
    found = base_folder(config)
    model_type = (
        "llama"
        if config.base.model is None
        else None
        if found is None
        else str(found.config.get("model_type"))
    )
    if not can_quantize(kind, model_type):
        raise no_quantization(kind, model_type or "kind of")


def _check_device(config: RunConfig) -> None:
    if config.engine.device in ("cuda", "mps"):
        from glore.devices import pick_device

        pick_device(config.engine.device)


def base_folder(config: RunConfig) -> ModelFolder | None:
    """The checked folder of the base model, or None for a Hub name and a base that this run makes.
    Raises ModelError.
    """
    model = config.base.model
    if config.base.is_made_here or model is None or not is_local(model):
        return None
    from glore.model_folder import open_folder

    return open_folder(str(config.base.reference), "causal language model")
