"""A fake of the package vllm with the signatures it documents (0.11 to 0.2x), drawing with the
torch engine.

Stricter than the real one where glore could go wrong: names of requests must be new, seeds fit into
64 bits, `n` is 1.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types

import pytest

from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.protocol import Completion, Request
from glore.engines.protocol import SamplingParams as OurParams

EOS = 1


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclasses.dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    stop: str | list[str] | None = None
    logprobs: int | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        assert self.n == 1
        assert self.seed is not None
        assert -(2**63) <= self.seed < 2**63
        assert self.output_kind is RequestOutputKind.FINAL_ONLY


@dataclasses.dataclass
class EngineArgs:
    model: str = ""
    revision: str | None = None
    tokenizer_revision: str | None = None
    trust_remote_code: bool = True
    load_format: str = "auto"
    dtype: str = "auto"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    disable_log_stats: bool = False
    use_tqdm_on_load: bool = True


@dataclasses.dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclasses.dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclasses.dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: None
    outputs: list[CompletionOutput]
    finished: bool


class EngineDeadError(Exception):
    """The process is gone."""


class EngineCore:
    """What the real one starts as a process of its own."""

    def __init__(self) -> None:
        self.n_shutdowns = 0

    def shutdown(self, timeout: float | None = None) -> None:
        self.n_shutdowns += 1


class RecordingEngine(TorchEngine):
    """Remembers the token rows that it decoded."""

    def texts(self, token_rows: list[list[int]]) -> list[str]:
        found = super().texts(token_rows)
        self.rows += zip(found, token_rows, strict=True)
        return found

    def ids_of(self, drawn: Completion, stop: str) -> list[int]:
        """The tokens of the completion that was drawn last, the end-of-text token included."""
        text = drawn.text + (stop if drawn.stop == "stop" else "")
        rows = [[*row, EOS][: drawn.n_tokens] for found, row in self.rows if found.startswith(text)]
        return next(row for row in reversed(rows) if len(row) == drawn.n_tokens)


class LLMEngine:
    """Ends up to three requests a step, the youngest first."""

    made: LLMEngine
    """The latest."""

    def __init__(self, args: EngineArgs) -> None:
        assert args.trust_remote_code is False
        assert args.load_format in ("safetensors", "pt")
        self.args = args
        self.engine_core = EngineCore()
        self.open: dict[str, tuple[list[int], SamplingParams]] = {}
        self.names: set[str] = set()
        self.aborted: list[str] = []
        self.most_open = 0
        self._engine = RecordingEngine(args.model, EngineSettings(device="cpu", max_rows=4))

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        usage_context: object = None,
        enable_multiprocessing: bool = False,
    ) -> LLMEngine:
        LLMEngine.made = cls(engine_args)
        return LLMEngine.made

    def add_request(
        self,
        request_id: str,
        prompt: dict[str, list[int]],
        params: SamplingParams,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> str:
        assert request_id not in self.names
        if len(prompt["prompt_token_ids"]) >= (self.args.max_model_len or 128):
            raise ValueError(
                f"The decoder prompt (length {len(prompt['prompt_token_ids'])}) is longer\nthan "
                "the maximum model length."
            )
        self.names.add(request_id)
        self.open[request_id] = (prompt["prompt_token_ids"], params)
        self.most_open = max(self.most_open, len(self.open))
        return request_id

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        for name in request_ids:
            del self.open[name]
        self.aborted += request_ids

    def has_unfinished_requests(self) -> bool:
        return bool(self.open)

    def step(self) -> list[RequestOutput]:
        outputs = []
        for name in list(self.open)[-3:][::-1]:
            tokens, params = self.open.pop(name)
            assert params.stop is None or isinstance(params.stop, list)
            stop = (params.stop or [""])[0]
            ours = OurParams(
                params.temperature,
                params.top_p,
                params.top_k,
                params.max_tokens,
                stop,
                params.logprobs is not None,
            )
            self._engine.rows: list[tuple[str, list[int]]] = []
            (result,) = self._engine.run(
                [Request(name, (self._engine.tokenizer.decode(tokens),), (params.seed,), ours)]
            )
            (drawn,) = result.completions
            reason = "length" if drawn.stop == "length" else "stop"
            # As the real one: the end-of-text token included, the text decoded behind the prompt.
            text = f" {drawn.text}" if drawn.text else ""
            ids = self._engine.ids_of(drawn, stop)
            logprobs = (
                None
                if drawn.logprobs is None
                else [
                    {-1: Logprob(0.0), i: Logprob(x)}
                    for i, x in zip(ids, drawn.logprobs, strict=True)
                ]
            )
            stopped_by = stop if drawn.stop == "stop" else None
            completion = CompletionOutput(
                0, text, ids, logprobs=logprobs, finish_reason=reason, stop_reason=stopped_by
            )
            outputs.append(RequestOutput(name, None, tokens, None, [completion], True))
        return outputs


def install(monkeypatch: pytest.MonkeyPatch, on_cpu: bool = False) -> None:
    """Let `import vllm` find this."""
    package, params = types.ModuleType("vllm"), types.ModuleType("vllm.sampling_params")
    package.EngineArgs, package.LLMEngine, package.SamplingParams = (
        EngineArgs,
        LLMEngine,
        SamplingParams,
    )
    params.RequestOutputKind = RequestOutputKind
    exceptions = types.ModuleType("vllm.v1.engine.exceptions")
    exceptions.EngineDeadError = EngineDeadError
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.exceptions", exceptions)
    platforms = types.ModuleType("vllm.platforms")
    platforms.current_platform = types.SimpleNamespace(is_cpu=lambda: on_cpu)
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
