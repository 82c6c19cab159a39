"""Sampling with vLLM in this process: its scheduler and its prefix caching, our requests and seeds.

This is a thin layer: requests go in as token ids, one per seed, and come out complete. Each seed is
a vLLM request of its own instead of one request with `n`: vLLM draws sibling i with seed + i, so
only separate requests have the seeds that were asked for. The prompt's cache blocks are shared
nevertheless. vLLM pins its own torch and transformers, so it needs its own environment
(docs/engines.md). Tested against vLLM's CPU build (`make test-vllm`) and, in every test run, a fake
of its interface; not yet run on a GPU.

vLLM works in a process of its own, so closing the engine gives all memory back. It takes a fixed
share of a GPU's memory when it starts and refuses to start where less is free. Engines that are
open at once in one process therefore share: each gets at most what the others leave.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import multiprocessing
import os
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from glore.config.plugins import is_installed
from glore.engines.encoding import checked_tokens
from glore.engines.lifetime import Closable
from glore.engines.protocol import FollowUp, Request, Result
from glore.engines.requests import Job, run_requests
from glore.errors import EngineError, ModelError, shown
from glore.tokenization import text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from glore.config import VllmEngineSettings

__all__ = ["VllmEngine", "check_installed", "import_vllm"]

INSTALL = "python -m venv vllm-env && vllm-env/bin/pip install 'glore[vllm]'"
END_SECONDS = 30.0
"""How long vLLM's process may take to end before it is killed."""
LEAST_SHARE = 0.02
"""Of the memory; less than this is no room for an engine."""
STOPS = {"stop": "eos", "length": "length"}
"""vLLM's `finish_reason` → ours."""


class VllmEngine(Closable):
    """An `Engine` over a model that vLLM can load.

    Raises EngineError without vLLM or memory, ModelError when it can't load the model.
    """

    shares: ClassVar[weakref.WeakKeyDictionary[VllmEngine, float]] = weakref.WeakKeyDictionary()
    """The open engines of this process, and the share of memory that each has."""

    def __init__(self, model_path: str | Path, settings: VllmEngineSettings) -> None:
        from glore.model_folder import open_folder
        from glore.models import load_tokenizer

        self.name = str(model_path)
        self._vllm = import_vllm()
        share = free_share(settings.gpu_memory, sum(self.shares.values()))
        found = open_folder(model_path, "causal language model")
        self.tokenizer = load_tokenizer(model_path)
        self._most = 2 * settings.max_rows
        """Completions in vLLM at once, beyond follow-ups."""
        self._names = itertools.count()
        arguments: dict[str, object] = {
            "model": found.name,
            "trust_remote_code": False,
            "load_format": "pt" if found.pickle else "safetensors",
            "dtype": settings.dtype,
            "tensor_parallel_size": settings.tensor_parallel,
            "gpu_memory_utilization": share,
            "max_num_seqs": settings.max_rows,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if found.revision is not None:
            arguments |= {"revision": found.revision, "tokenizer_revision": found.revision}
        if settings.context is not None:
            arguments["max_model_len"] = settings.context
        if self._vllm.on_cpu:
            # Its CPU build can't draw with a seed once a prompt was read in parts: it rewinds the
            # random numbers, which only those of a GPU allow ("CPU Generator does not use offset").
            arguments["enable_chunked_prefill"] = False
        before = multiprocessing.active_children()
        try:
            self._engine = self._vllm.LLMEngine.from_engine_args(self._vllm.EngineArgs(**arguments))
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(
                f"vLLM can't load {shown(str(model_path))}: "
                f"{shown(' '.join(str(error).split()), 300)}; see its own messages, and "
                f"engine.gpu_memory, of which this engine was given {share:.0%}"
            ) from error
        self.shares[self] = share
        self._processes = [p for p in multiprocessing.active_children() if p not in before]

    @property
    def backend(self) -> str:
        """Always `vllm`, with what it runs on if that is no GPU."""
        return "vllm on a CPU" if self._vllm.on_cpu else "vllm"

    def _free(self) -> None:
        try:
            self._engine.engine_core.shutdown(timeout=END_SECONDS)
            for process in self._processes:  # vLLM kills one that takes long, and doesn't wait
                process.join(END_SECONDS)
        finally:
            del self._engine, self.tokenizer
            self.shares.pop(self, None)

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`.

        Leaving it early aborts what is in progress.
        """
        self.check_open()
        return self._guarded(self._results(requests, follow_up))

    def _results(
        self, requests: Iterable[Request], follow_up: FollowUp | None
    ) -> Generator[Result]:
        stepper = _VllmStepper(self._vllm, self._engine, self.tokenizer, self._names, self._most)
        try:
            yield from run_requests(stepper, requests, follow_up)
        finally:
            stepper.abort()


class _VllmStepper:
    """The requests of one `run` in vLLM's engine, which knows each completion by a name."""

    def __init__(
        self,
        vllm: _Vllm,
        engine: LLMEngine,
        tokenizer: PreTrainedTokenizerBase,
        names: Iterator[int],
        most_open: int,
    ) -> None:
        self._vllm, self._engine, self._tokenizer = vllm, engine, tokenizer
        self._names, self._most_open = names, most_open
        self._open: dict[str, tuple[Job, int]] = {}
        """vLLM's name of a completion → its request and the index of its seed."""

    @property
    def is_busy(self) -> bool:
        """Whether vLLM works on any completion."""
        return bool(self._open)

    def has_room(self) -> bool:
        """Whether to add a request from the source now."""
        return len(self._open) < self._most_open

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Give vLLM a request for every seed. Raises EngineError for what it refuses."""
        tokens = checked_tokens(self._tokenizer, request)
        params = request.params
        job = Job(request)
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
            self._open[name] = (job, index)

    def step(self) -> list[Result]:
        """One step of vLLM. Returns the results that became complete."""
        try:
            outputs = self._engine.step()
        except self._vllm.EngineDeadError as error:
            raise EngineError(
                "vLLM's process has died; its own messages say why, and which setting may help "
                "(engine.gpu_memory, engine.max_rows, engine.context)"
            ) from error
        jobs = [self._finish(output) for output in outputs if output.finished]
        return [job.result() for job in jobs if job is not None]

    def abort(self) -> None:
        """Let vLLM drop what is in progress."""
        if self._open:
            self._engine.abort_request(list(self._open))

    def _finish(self, output: RequestOutput) -> Job | None:
        """Store a finished completion. Returns the request if it was its last."""
        place = self._open.pop(output.request_id, None)
        if place is None:  # of a run that was left early
            return None
        job, index = place
        drawn, params = output.outputs[0], job.request.params
        if drawn.finish_reason not in STOPS:
            raise EngineError(
                f"request {shown(job.request.id)}: vLLM ended it with {shown(drawn.finish_reason)} "
                "and no completion"
            )
        is_stopped = params.stop and isinstance(drawn.stop_reason, str)
        stop = "stop" if is_stopped else STOPS[drawn.finish_reason]
        logprobs = tokens = None
        if params.logprobs:
            if drawn.logprobs is None:
                raise EngineError(
                    f"request {shown(job.request.id)}: vLLM gave no log-probabilities; sample "
                    "without logprobs"
                )
            tokens = tuple(drawn.token_ids)
            logprobs = tuple(
                at[token].logprob for at, token in zip(drawn.logprobs, tokens, strict=True)
            )
        text = self._text(drawn, params.stop if is_stopped else "")
        is_last = job.finish(index, text, len(drawn.token_ids), stop, logprobs, tokens)
        return job if is_last else None

    def _text(self, drawn: CompletionOutput, stop: str) -> str:
        """A completion's text, decoded by itself as in the other engines.

        vLLM decodes it behind the prompt, which leaves a space at its beginning for some
        tokenizers.
        """
        text = text_of(self._tokenizer, drawn.token_ids)
        if not stop:
            return text
        before, found, _ = text.partition(stop)
        return before if found else drawn.text


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


class EngineCore(Protocol):
    """What is used of the client of vLLM's own process."""

    def shutdown(self, timeout: float | None = None) -> None: ...


class LLMEngine(Protocol):
    """What is used of vLLM's class of this name."""

    engine_core: EngineCore

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
    """What is used of the package."""

    EngineArgs: _MadeOf
    LLMEngine: type[LLMEngine]
    SamplingParams: _MadeOf
    RequestOutputKind: _OutputKinds
    EngineDeadError: type[Exception]
    on_cpu: bool
    """Whether this is its build for CPUs."""


def free_share(wanted: float, taken: float) -> float:
    """The share of memory for one more engine: `wanted`, or what those that are open leave.

    Raises EngineError where they leave none.
    """
    share = round(min(wanted, 1 - taken), 4)
    if share < LEAST_SHARE:
        raise EngineError(
            f"the vLLM engines that are open in this process hold {taken:.0%} of the memory and "
            "leave none for another; close one first, or set engine.gpu_memory lower"
        )
    return share


def check_installed(settings: VllmEngineSettings) -> None:
    """Raises EngineError where vLLM is not installed. It takes long to import, so it is only looked
    up.
    """
    if not is_installed("vllm"):
        import_vllm()


def import_vllm() -> _Vllm:
    """The package, imported late. Raises EngineError with what to install."""
    # Its progress would run through glore's; warnings and errors are shown.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        package = importlib.import_module("vllm")
        kinds = importlib.import_module("vllm.sampling_params").RequestOutputKind
        on_cpu = importlib.import_module("vllm.platforms").current_platform.is_cpu()
        dead = importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError
        return _Vllm(
            package.EngineArgs, package.LLMEngine, package.SamplingParams, kinds, dead, on_cpu
        )
    except (ImportError, AttributeError) as error:
        raise EngineError(
            "engine.kind=vllm needs the package vllm, which can't be used here "
            f"({shown(str(error))}); it pins its own torch, so give it an environment of its own: "
            f"{INSTALL}; or serve the model elsewhere and use engine.kind=http"
        ) from error
