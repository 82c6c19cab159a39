"""Sampling with vLLM in this process: its scheduler, its paged cache with prefix caching, our
requests and seeds.

Thin on purpose: requests go in as token ids, one per seed, and come out whole. One vLLM request per
seed instead of one with `n`: vLLM draws sibling i with seed + i, so only requests of their own have
the seeds that were asked for. The prompt's cache blocks are shared either way. vLLM pins its own
torch and transformers, so it lives in an environment of its own (docs/engines.md). Written to
vLLM's documented interface and tested against a stand-in; not yet measured on a GPU.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glore.engines.encoding import checked_tokens
from glore.engines.protocol import Completion, FollowUp, Request, Result, followed
from glore.errors import EngineError, ModelError, shown

if TYPE_CHECKING:
    from glore.config import EngineSettings

__all__ = ["VllmEngine", "import_vllm"]

INSTALL = "python -m venv vllm-env && vllm-env/bin/pip install 'glore[vllm]'"
STOPS = {"stop": "eos", "length": "length"}
"""vLLM's `finish_reason` → ours."""


class VllmEngine:
    """An `Engine` over a model that vLLM can load. Raises EngineError without vLLM, ModelError when
    it can't load the model.
    """

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        from glore.modelfolder import open_folder
        from glore.models import load_tokenizer

        self._vllm = import_vllm()
        found = open_folder(model_path, "causal language model")
        self.tokenizer = load_tokenizer(model_path)
        self._most_open = 2 * settings.max_rows
        self._names = itertools.count()
        arguments: dict[str, object] = {
            "model": found.name,
            "trust_remote_code": False,
            "load_format": "pt" if found.pickle else "safetensors",
            "dtype": settings.dtype,
            "tensor_parallel_size": settings.tensor_parallel,
            "gpu_memory_utilization": settings.gpu_memory,
            "max_num_seqs": settings.max_rows,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if found.revision is not None:
            arguments |= {"revision": found.revision, "tokenizer_revision": found.revision}
        if settings.context is not None:
            arguments["max_model_len"] = settings.context
        try:
            self._engine = self._vllm.LLMEngine.from_engine_args(self._vllm.EngineArgs(**arguments))
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(
                f"vLLM can't load {shown(str(model_path))}: "
                f"{shown(' '.join(str(error).split()), 300)}"
            ) from error

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`. Leaving it
        early aborts what is under way.
        """
        source = iter(requests)
        added: deque[Request] = deque()
        batch = _Open()
        try:
            while True:
                while (
                    len(batch.places) < self._most_open
                    and (request := added.popleft() if added else next(source, None)) is not None
                ):
                    if request.seeds:
                        self._begin(request, batch)
                    else:
                        added.extend(followed(Result(request, ()), follow_up))
                        yield Result(request, ())
                if not batch.places:
                    return
                for job in [
                    job
                    for output in self._engine.step()
                    if output.finished and (job := batch.take(output)) is not None
                ]:
                    result = Result(job.request, tuple(c for c in job.completions if c is not None))
                    added.extend(followed(result, follow_up))
                    yield result
        finally:
            if batch.places:
                self._engine.abort_request(list(batch.places))

    def _begin(self, request: Request, batch: _Open) -> None:
        tokens = checked_tokens(self.tokenizer, request)
        params = request.params
        job = _Job(request, [None] * len(request.seeds))
        for index, seed in enumerate(request.seeds):
            sampling = self._vllm.SamplingParams(
                n=1,
                temperature=params.temperature,
                top_p=params.top_p,
                top_k=params.top_k,
                max_tokens=params.max_new_tokens,
                stop=[params.stop] if params.stop else None,
                logprobs=0 if params.logprobs else None,
                seed=seed,
                output_kind=self._vllm.RequestOutputKind.FINAL_ONLY,
            )
            name = str(next(self._names))
            try:
                self._engine.add_request(name, {"prompt_token_ids": tokens}, sampling)
            except ValueError as error:
                raise EngineError(
                    f"request {shown(request.id)}: vLLM refuses it: "
                    f"{shown(' '.join(str(error).split()), 300)}"
                ) from error
            batch.places[name] = (job, index)


@dataclasses.dataclass(slots=True, eq=False)
class _Job:
    """A request on its way."""

    request: Request
    completions: list[Completion | None]
    n_done: int = 0


class _Open:
    """What vLLM is working on: its names for completions, and whose they are."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[_Job, int]] = {}

    def take(self, output: RequestOutput) -> _Job | None:
        """Keep a finished completion; the job when it was its last."""
        place = self.places.pop(output.request_id, None)
        if place is None:  # of a run that was left early
            return None
        job, index = place
        drawn = output.outputs[0]
        if drawn.finish_reason not in STOPS:
            raise EngineError(
                f"request {shown(job.request.id)}: vLLM ended it with {shown(drawn.finish_reason)} "
                "and no completion"
            )
        stop = (
            "stop"
            if job.request.params.stop and isinstance(drawn.stop_reason, str)
            else STOPS[drawn.finish_reason]
        )
        logprobs = None
        if job.request.params.logprobs:
            if drawn.logprobs is None:
                raise EngineError(
                    f"request {shown(job.request.id)}: vLLM gave no log-probabilities; sample "
                    "without logprobs"
                )
            logprobs = tuple(
                at[token].logprob for at, token in zip(drawn.logprobs, drawn.token_ids, strict=True)
            )
        job.completions[index] = Completion(
            drawn.text, len(drawn.token_ids), stop, job.request.seeds[index], logprobs
        )
        job.n_done += 1
        return job if job.n_done == len(job.completions) else None


class Logprob(Protocol):
    """What is read of vLLM's class of this name."""

    logprob: float


class CompletionOutput(Protocol):
    """What is read of vLLM's class of this name."""

    text: str
    token_ids: Sequence[int]
    """The end-of-text token included."""
    finish_reason: str | None
    stop_reason: int | str | None
    """The stop string that was met; a token id, or none, where the text ended."""
    logprobs: Sequence[Mapping[int, Logprob]] | None
    """For each drawn token: at least its own."""


class RequestOutput(Protocol):
    """What is read of vLLM's class of this name."""

    request_id: str
    outputs: Sequence[CompletionOutput]
    finished: bool


class LLMEngine(Protocol):
    """What is used of vLLM's class of this name."""

    @classmethod
    def from_engine_args(cls, engine_args: object) -> LLMEngine: ...
    def add_request(
        self, request_id: str, prompt: Mapping[str, object], params: object
    ) -> object: ...
    def step(self) -> Sequence[RequestOutput]: ...
    def abort_request(self, request_ids: list[str]) -> None: ...


class _OutputKinds(Protocol):
    FINAL_ONLY: object


class _MadeOf(Protocol):
    def __call__(self, **arguments: object) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Vllm:
    """The four names that are used of the package."""

    EngineArgs: _MadeOf
    LLMEngine: type[LLMEngine]
    SamplingParams: _MadeOf
    RequestOutputKind: _OutputKinds


def import_vllm() -> _Vllm:
    """The package, imported late. Raises EngineError with what to install."""
    try:
        package = importlib.import_module("vllm")
        kinds = importlib.import_module("vllm.sampling_params").RequestOutputKind
        return _Vllm(package.EngineArgs, package.LLMEngine, package.SamplingParams, kinds)
    except (ImportError, AttributeError) as error:
        raise EngineError(
            "engine.kind=vllm needs the package vllm, which can't be used here "
            f"({shown(str(error))}); it pins its own torch, so give it an environment of its own: "
            f"{INSTALL}; or serve the model elsewhere and use engine.kind=http"
        ) from error
