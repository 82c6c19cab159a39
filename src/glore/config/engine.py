"""Settings of sampling: a class for each kind of engine, registered in the last lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from glore.config.kinds import Kinds, KindSettings
from glore.config.section import NEWER
from glore.config.trust import VARIABLE
from glore.errors import shown

__all__ = [
    "AutoEngineSettings",
    "ChosenEngine",
    "EngineSettings",
    "HttpEngineSettings",
    "Quantization",
    "RayEngineSettings",
    "TorchEngineSettings",
    "VllmEngineSettings",
]

Quantization = Literal["none", "int16", "int8"]


class EngineSettings(KindSettings):
    """How completions are sampled, and on what reward models score (docs/engines.md): `auto`,
    `torch`, `http`, `vllm`, `ray`, or a kind of an installed package (entry points in
    `glore.engines`).

    `device`, `dtype` and `scoring_tokens` also hold for reward models, which score in this process
    (or, with `ray`, in a pool). `opener` takes a model's folder or Hub name and the settings, and
    returns a `glore.engines.protocol.Engine`.
    """

    kind: str = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto`: a GPU that torch sees through CUDA, else the CPU. `mps` (an Apple GPU) draws and
    scores; trainings then run on the CPU.
    """
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights that draw and score. Trainings have `base.dtype`."""
    max_rows: int = Field(256, ge=1)
    """Rows decoded together."""
    scoring_tokens: int = Field(16384, ge=256)
    """Padded tokens per batch when solutions are scored."""

    checker: ClassVar[str | None] = None
    """`module:function` that takes the settings and raises a GloreError for what can be known to be
    missing before any stage begins, such as a package or a key.
    """
    chooser: ClassVar[str | None] = None
    """For a kind that stands for others: `module:function` that takes a run's settings and returns
    the engine's (`ChosenEngine`).
    """

    @property
    def sampler(self) -> EngineSettings:
        """The settings of the engine that draws: these, or those inside a pool."""
        return self

    def shared_by(self, n_engines: int) -> Self:
        """The settings for each of `n_engines` engines that are open at once on one machine."""
        return self

    def fingerprint_fields(self) -> dict[str, object]:
        """The settings that results depend on, by their names below `engine`: the kind, the dtype,
        and all that only this kind has. A kind overrides this where some change speed alone.
        """
        own = type(self).model_fields.keys() - EngineSettings.model_fields.keys()
        return {name: getattr(self, name) for name in ("kind", "dtype", *sorted(own))}


class ChosenEngine(NamedTuple):
    """The settings of an engine that was chosen, and why it was."""

    settings: EngineSettings
    why: str


class _TorchOptions(EngineSettings):
    """What `torch` alone has."""

    quantization: Quantization = "none"
    """On a CPU: `int16` and `int8` draw with weights and their inputs in whole numbers, keys and
    values in 16 bits: faster, and from a slightly different distribution (docs/engines.md says how
    different). Reward models always score without it.
    """

    @model_validator(mode="after")
    def _quantized_on_a_cpu(self) -> Self:
        if self.quantization != "none" and (
            self.dtype != "float32" or self.device in ("cuda", "mps")
        ):
            raise ValueError(
                f"quantization {self.quantization} is for float32 models on a CPU, got dtype "
                f"{self.dtype}, device {self.device}; drop one"
            )
        return self


class TorchEngineSettings(_TorchOptions):
    """transformers in this process."""

    kind: Literal["torch"] = "torch"

    opener: ClassVar[str] = "glore.engines.local.engine:TorchEngine"

    def fingerprint_fields(self) -> dict[str, object]:
        quantized = {} if self.quantization == "none" else {"quantization": self.quantization}
        return {"kind": self.kind, "dtype": self.dtype, **quantized}


class HttpEngineSettings(EngineSettings):
    """An OpenAI-compatible completions server."""

    kind: Literal["http"] = "http"
    url: str | None = None
    """Where the server is, such as `http://localhost:8000/v1`; `{name}` is the model's name in the
    run (student, refiner, …).
    """
    urls: dict[str, str] = Field(default_factory=dict)
    """Other servers for some models, by the model's name in the run."""
    model: str = "{name}"
    """The model's name on the server. `{name}` as above; `{path}`: the model's folder or Hub name.
    """
    models: dict[str, str] = Field(default_factory=dict)
    """Other names on the server for some models, by the model's name in the run."""
    api_key_env: str = "GLORE_API_KEY"
    """The environment variable that holds the API key, if the server wants one. Keys are never
    settings. A name that doesn't begin with `GLORE_` counts on the command line only, at each
    start.
    """
    concurrency: int = Field(64, ge=1, le=4096)
    """Requests under way at once."""
    timeout_seconds: float = Field(600.0, gt=0)
    """For one request, its answer included."""
    wait_seconds: float = Field(0.0, ge=0)
    """How long to wait for the server to serve a model before giving up (it may be loading, or be
    started meanwhile).
    """
    prompt: Literal["tokens", "text"] = "tokens"
    """Send prompts as token ids of the model's own tokenizer, as every other engine does, or as
    text that the server encodes.
    """
    siblings: Literal["separate", "together"] = "separate"
    """The completions of one prompt as requests of their own, each with its seed, or as one request
    with `n`.
    """
    extensions: bool = True
    """Send `top_k`, `min_p` and `repetition_penalty` too, which are not OpenAI's: servers such as
    vLLM otherwise take the model's generation_config.json for what is not sent.
    """
    retries: int = Field(6, ge=0, le=20)
    """Tries after a failed one."""

    opener: ClassVar[str] = "glore.engines.http.engine:HttpEngine"
    checker: ClassVar[str | None] = "glore.engines.http.apikey:check_key"

    def fingerprint_fields(self) -> dict[str, object]:
        names = ("kind", "dtype", "prompt", "siblings", "extensions")
        return {name: getattr(self, name) for name in names}

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str) -> str:
        if not VARIABLE.fullmatch(name):
            raise ValueError(
                "give the name of an environment variable in capitals, such as GLORE_API_KEY; the "
                "value given is not shown, since it may be the key: put that into the variable"
            )
        return name

    @model_validator(mode="after")
    def _usable_addresses(self) -> HttpEngineSettings:
        if self.url is None:
            raise ValueError("an engine of kind http needs url, such as http://localhost:8000/v1")
        for value in (self.url, *self.urls.values()):
            if "@" in value:
                raise ValueError(
                    "an address has no user and password (before an @), since addresses are "
                    "shown and stored; remove them, and put a key into GLORE_API_KEY"
                )
            if any(sign in value for sign in "?#"):
                raise ValueError(
                    f"an address has no ? and #, got {shown(value.partition('?')[0])} and more; "
                    "remove that"
                )
            if value and not value.startswith(("http://", "https://")):
                raise ValueError(f"url begins with http:// or https://, got {shown(value)}")
        for template in (self.url, self.model, *self.urls.values(), *self.models.values()):
            if set(re.findall(r"{(.*?)}", template)) - {"name", "path"}:
                raise ValueError(f"only {{name}} and {{path}} are filled in, got {shown(template)}")
        return self


class _VllmOptions(EngineSettings):
    """What `vllm` alone has."""

    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share a model."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """Share of each GPU's memory for weights and cache. Engines that are open at once share it."""
    context: int | None = Field(None, ge=16)
    """Longest prompt and completion together, in tokens; none: the model's own limit."""


class VllmEngineSettings(_VllmOptions):
    """vLLM in this process."""

    kind: Literal["vllm"] = "vllm"

    opener: ClassVar[str] = "glore.engines.vllm:VllmEngine"
    checker: ClassVar[str | None] = "glore.engines.vllm:check_installed"

    def shared_by(self, n_engines: int) -> Self:
        return self.model_copy(update={"gpu_memory": self.gpu_memory / n_engines})

    def fingerprint_fields(self) -> dict[str, object]:
        return {"kind": self.kind, "dtype": self.dtype}


class AutoEngineSettings(_TorchOptions, _VllmOptions):
    """`vllm` or `torch`, whichever fits this machine and the model (`glore.engines.auto`). An
    option that the chosen kind does not have is refused when it is chosen.
    """

    kind: Literal["auto"] = "auto"

    opener: ClassVar[str] = "glore.engines.open:open_engine"
    chooser: ClassVar[str | None] = "glore.stages.engine_choice:choose_for_run"

    def fingerprint_fields(self) -> dict[str, object]:
        """Refused: results depend on the engine that is chosen. Raises ValueError."""
        raise ValueError("an engine of kind auto has no fingerprint before it is chosen")


class RayEngineSettings(EngineSettings):
    """A pool of `inner` engines on one or many machines."""

    kind: Literal["ray"] = "ray"
    workers: int = Field(2, ge=1)
    """Engines in the pool."""
    inner: SerializeAsAny[EngineSettings | None] = None
    """What each worker runs, `torch` unless it names a kind; none: torch with this section's
    device, dtype and max_rows.
    """
    address: str | None = None
    """The cluster, such as `auto`, or, given on the command line at each start, `10.0.0.1:6379`;
    none: the one in RAY_ADDRESS or already running here, else a new one on this machine; `local`: a
    new one in any case.
    """
    cpus_per_worker: float = Field(1.0, ge=0)
    """Cores that each worker takes of its machine; its threads."""
    gpus_per_worker: float = Field(0.0, ge=0)
    """What each worker takes of its machine."""
    scoring: Annotated[Literal["here", "pool"], NEWER] = "here"
    """Where reward models score: in the process of the run, or in a pool of as many workers, with
    this section's `device`, `dtype` and `scoring_tokens`.
    """
    ship_models: bool = False
    """Send model files to the workers through the object store; else they open the same path, so it
    must be on a shared folder.
    """
    retries: int = Field(6, ge=0, le=20)
    """How often the work of a lost worker is done again."""

    opener: ClassVar[str] = "glore.engines.ray.engine:RayEngine"
    checker: ClassVar[str | None] = "glore.engines.ray.cluster:check_installed"

    def shared_by(self, n_engines: int) -> Self:
        """Fewer workers each; where there are too few to share, each takes less of its machine."""
        if self.workers >= n_engines:
            return self.model_copy(update={"workers": self.workers // n_engines})
        return self.model_copy(
            update={
                "workers": 1,
                "cpus_per_worker": self.cpus_per_worker / n_engines,
                "gpus_per_worker": self.gpus_per_worker / n_engines,
                "inner": None if self.inner is None else self.inner.shared_by(n_engines),
            }
        )

    @property
    def sampler(self) -> EngineSettings:
        return self.inner or TorchEngineSettings(
            device=self.device, dtype=self.dtype, max_rows=self.max_rows
        )

    def fingerprint_fields(self) -> dict[str, object]:
        """Those of the engine that draws: a pool draws what one of its engines draws."""
        inner = self.sampler
        other = {} if inner.dtype == self.dtype else {"inner.dtype": inner.dtype}
        return {**inner.fingerprint_fields(), "dtype": self.dtype, **other}

    @field_validator("inner", mode="before")
    @classmethod
    def _torch_inside(cls, inner: object) -> object:
        """`auto` would choose for this machine, and the workers may be on others."""
        if isinstance(inner, AutoEngineSettings) and "kind" not in inner.model_fields_set:
            inner = inner.model_dump(exclude_unset=True)
        return {"kind": "torch", **inner} if isinstance(inner, Mapping) else inner

    @model_validator(mode="after")
    def _pool_of_other_engines(self) -> RayEngineSettings:
        if self.inner is not None and self.max_rows != type(self).model_fields["max_rows"].default:
            raise ValueError(
                "max_rows has no effect with inner engines; set inner.max_rows instead"
            )
        if self.inner is not None and self.inner.kind == "ray":
            raise ValueError("inner can't be of kind ray itself; use torch, http or vllm")
        if self.inner is not None and self.inner.kind == "auto":
            raise ValueError(
                "inner can't be of kind auto, since the workers may be on other machines than this "
                "one; use torch, http or vllm"
            )
        return self


EngineSettings.kinds = Kinds(
    EngineSettings,
    TorchEngineSettings,
    HttpEngineSettings,
    VllmEngineSettings,
    RayEngineSettings,
    AutoEngineSettings,
    group="glore.engines",
    noun="engines",
)
