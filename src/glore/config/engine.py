"""Settings of sampling: which engine, and what each kind of engine reads."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from glore.config.section import Settings
from glore.config.trust import VARIABLE
from glore.errors import shown

__all__ = ["EngineSettings", "Quantization"]

Quantization = Literal["none", "int16", "int8"]


class EngineSettings(Settings):
    """How completions are sampled, and on what reward models score (docs/engines.md).

    `device`, `dtype` and `scoring_tokens` also hold for reward models, which always score in this
    process.
    """

    kind: Literal["torch", "http", "vllm", "ray"] = "torch"
    """`torch`: transformers in this process; `http`: an OpenAI-compatible completions server;
    `vllm`: vLLM in this process; `ray`: a pool of `inner` engines on one or many machines.
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: Quantization = "none"
    """torch, on a CPU: `int16` and `int8` draw with weights and their inputs in whole numbers, keys
    and values in 16 bits: faster, and from a slightly different distribution (docs/engines.md says
    how different). Reward models always score without it.
    """
    max_rows: int = Field(256, ge=1)
    """Rows decoded together."""
    scoring_tokens: int = Field(16384, ge=256)
    """Padded tokens per batch when solutions are scored."""
    url: str | None = None
    """http: where the server is, such as `http://localhost:8000/v1`; `{name}` is the model's name
    in the run (student, refiner, …).
    """
    urls: dict[str, str] = Field(default_factory=dict)
    """http: other servers for some models, by the model's name in the run."""
    model: str = "{name}"
    """http: the model's name on the server; `{name}` as above, `{path}` the model's folder or Hub
    name.
    """
    models: dict[str, str] = Field(default_factory=dict)
    """http: other names on the server for some models, by the model's name in the run."""
    api_key_env: str = "GLORE_API_KEY"
    """http: the environment variable that holds the API key, if the server wants one. Keys are
    never settings. A name that doesn't begin with `GLORE_` counts on the command line only, at each
    start.
    """
    concurrency: int = Field(64, ge=1, le=4096)
    """http: requests under way at once."""
    timeout_seconds: float = Field(600.0, gt=0)
    """http: for one request, its answer included."""
    wait_seconds: float = Field(0.0, ge=0)
    """http: wait so long for the server to serve a model before giving up (it may be loading, or be
    started meanwhile).
    """
    prompt: Literal["tokens", "text"] = "tokens"
    """http: send prompts as token ids of the model's own tokenizer, as every other engine does, or
    as text that the server encodes.
    """
    siblings: Literal["separate", "together"] = "separate"
    """http: the completions of one prompt as requests of their own, each with its seed, or as one
    request with `n`.
    """
    extensions: bool = True
    """http: send `top_k`, `min_p` and `repetition_penalty` too, which are not OpenAI's: servers
    such as vLLM else take the model's generation_config.json for what is not said.
    """
    retries: int = Field(6, ge=0, le=20)
    """http: tries after a failed one. ray: how often the work of a lost worker is done again."""
    tensor_parallel: int = Field(1, ge=1)
    """vllm: GPUs that share a model."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """vllm: share of each GPU's memory for weights and cache."""
    context: int | None = Field(None, ge=16)
    """vllm: longest prompt and completion together, in tokens; none: the model's own limit."""
    workers: int = Field(2, ge=1)
    """ray: engines in the pool."""
    inner: EngineSettings | None = None
    """ray: what each worker runs; none: torch with this section's device, dtype and max_rows."""
    address: str | None = None
    """ray: the cluster, such as `auto`, or, given on the command line at each start,
    `10.0.0.1:6379`; none: the one in RAY_ADDRESS or already running here, else a new one on this
    machine; `local`: a new one in any case.
    """
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    """ray: what each worker takes of its machine."""
    ship_models: bool = False
    """ray: send model files to the workers through the object store; else they open the same path,
    so it must be on a shared folder.
    """

    @property
    def sampler(self) -> EngineSettings:
        """The settings of the engine that draws: this one's, or those inside a pool."""
        if self.kind != "ray":
            return self
        return self.inner or EngineSettings(
            device=self.device, dtype=self.dtype, max_rows=self.max_rows
        )

    def fingerprint_fields(self) -> dict[str, object]:
        """What results depend on, by its name in fingerprints; the rest changes speed alone. A pool
        of engines draws what one of them draws.
        """
        sampler = self.sampler
        fields: dict[str, object] = {"kind": sampler.kind, "dtype": self.dtype}
        if sampler.quantization != "none":
            fields["quantization"] = sampler.quantization
        if sampler.dtype != self.dtype:
            fields["inner.dtype"] = sampler.dtype
        if sampler.kind == "http":
            fields |= {
                "prompt": sampler.prompt,
                "siblings": sampler.siblings,
                "extensions": sampler.extensions,
            }
        return fields

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str) -> str:
        if not VARIABLE.fullmatch(name):
            raise ValueError(
                "the name of an environment variable in capitals is wanted, such as "
                "GLORE_API_KEY; what was given is not shown, since it may be the key: put that "
                "into the variable"
            )
        return name

    @model_validator(mode="after")
    def _fits_kind(self) -> EngineSettings:
        for kinds, fields in _ENGINE_FIELDS.items():
            for name in fields if self.kind not in kinds else ():
                if getattr(self, name) != type(self).model_fields[name].get_default(
                    call_default_factory=True
                ):
                    raise ValueError(
                        f"{name} is for engines of kind {' or '.join(kinds)}, got kind "
                        f"{self.kind}; remove it or change kind"
                    )
        if self.inner is not None and self.max_rows != type(self).model_fields["max_rows"].default:
            raise ValueError(
                "nobody reads max_rows where there are inner engines; set inner.max_rows in its "
                "place"
            )
        if self.kind == "http" and self.url is None:
            raise ValueError("an engine of kind http needs url, such as http://localhost:8000/v1")
        for value in (self.url or "", *self.urls.values()):
            if "@" in value:
                raise ValueError(
                    "an address holds no user and password (before an @), since addresses are "
                    "shown and kept; leave them out, and put a key into GLORE_API_KEY"
                )
            if any(sign in value for sign in "?#"):
                raise ValueError(
                    f"an address ends before ? and #, got {shown(value.partition('?')[0])} and "
                    "more; leave that out"
                )
            if value and not value.startswith(("http://", "https://")):
                raise ValueError(f"url begins with http:// or https://, got {shown(value)}")
        for template in (self.url or "", self.model, *self.urls.values(), *self.models.values()):
            if set(re.findall(r"{(.*?)}", template)) - {"name", "path"}:
                raise ValueError(f"only {{name}} and {{path}} are filled in, got {shown(template)}")
        if self.quantization != "none" and (self.dtype != "float32" or self.device == "cuda"):
            raise ValueError(
                f"quantization {self.quantization} is for float32 models on a CPU, got dtype "
                f"{self.dtype}, device {self.device}; drop one"
            )
        if self.inner is not None and self.inner.kind == "ray":
            raise ValueError("inner can't be of kind ray itself; use torch, http or vllm")
        return self


_ENGINE_FIELDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("http",): (
        *(
            "url",
            "urls",
            "model",
            "models",
            "api_key_env",
            "concurrency",
            "timeout_seconds",
            "wait_seconds",
        ),
        *("prompt", "siblings", "extensions"),
    ),
    ("http", "ray"): ("retries",),
    ("torch",): ("quantization",),
    ("vllm",): ("tensor_parallel", "gpu_memory", "context"),
    ("ray",): ("workers", "inner", "address", "cpus_per_worker", "gpus_per_worker", "ship_models"),
}
"""Which kinds read a setting: elsewhere it must keep its default, so that none is set in vain."""
