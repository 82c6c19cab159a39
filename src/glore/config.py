"""All settings of a run: YAML in, dotted overrides, checked, resolved copy out.

Inert: building a config reads no model and no data. Unknown keys are refused with the nearest known one. A field's
meaning stands under the field.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Literal, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glore.errors import ConfigError, shown

__all__ = [
    "BaseModelSettings",
    "EngineSettings",
    "EvaluationSettings",
    "ExpertIterationSettings",
    "LabelSettings",
    "LoraSettings",
    "RefinerSettings",
    "RewardModelSettings",
    "RunConfig",
    "ScratchModelSettings",
    "Settings",
    "StoriesSettings",
    "StudentSettings",
    "TaskSettings",
    "TrainSettings",
    "load_config",
]


class Settings(BaseModel):
    """Base: no unknown keys, no changes after building, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoraSettings(Settings):
    """Low-rank adaptation through peft (extra `peft`). The adapter is merged into the saved model."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Union[Literal["all-linear"], tuple[str, ...]] = "all-linear"


class TrainSettings(Settings):
    """One training run on transformers.Trainer."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(0, ge=0)
    """Optimiser steps; 0: as many as `epochs` gives."""
    learning_rate: float = Field(5e-5, gt=0)
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    """The cosine ends at this share of `learning_rate` (App. C: 5e-5 → 5e-7)."""
    warmup_ratio: float = Field(0.03, ge=0, le=0.5)
    batch_size: int = Field(64, ge=1)
    """Rows per device and micro-step."""
    gradient_accumulation: int = Field(1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the 2-D hidden weights, AdamW for embeddings, head and vectors."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    bf16: bool = False
    gradient_checkpointing: bool = False
    max_length: int = Field(1024, ge=16)
    """Longer rows are left out and counted."""
    lora: LoraSettings | None = None
    save_steps: int = Field(0, ge=0)
    """Checkpoint inside the stage every so many optimiser steps; 0: none, the stage starts again when killed."""
    report_to: tuple[str, ...] = ()
    """Trackers of transformers.Trainer: `tensorboard`, `trackio`, …"""


class StoriesSettings(Settings):
    """Difficulty knobs of the built-in task."""

    people: tuple[int, int] = (3, 5)
    """Smallest and largest number of people in a story."""
    steps: tuple[int, int] = (2, 4)
    """Fewest and most steps of a solution (the answer line not counted)."""
    max_number: int = Field(60, ge=10, le=999)
    """No quantity of a story is larger."""
    unknown: tuple[int, int] = (0, 1)
    """Fewest and most people whose number the story doesn't tell, only what some changes would make of it: easier to check than to find."""
    unknown_changes: tuple[int, int] = (2, 3)
    """Fewest and most such changes."""
    changes: tuple[int, int] = (1, 2)
    """Fewest and most changes of a stated number."""
    extra_relations: int = Field(1, ge=0, le=3)
    """Redundant relations: they give more than one way to a quantity."""
    shuffled: float = Field(0.5, ge=0, le=1)
    """Share of stories whose sentences stand in any order; in the others, what is needed first is told first."""
    turned: float = Field(0.15, ge=0, le=1)
    """Share of relations told the other way round, with the person who is known already as the subject."""
    distractors: int = Field(1, ge=0, le=3)
    """Most irrelevant sentences in a story."""
    n_train: int = Field(3000, ge=1)
    n_dev: int = Field(300, ge=1)
    n_test: int = Field(600, ge=1)
    worked_share: float = Field(0.1, ge=0, le=1)
    """Share of the training questions that come with a worked solution."""

    @model_validator(mode="after")
    def _ordered(self) -> StoriesSettings:
        if not 2 <= self.people[0] <= self.people[1] <= 8:
            raise ValueError(f"people must be two numbers with 2 <= smallest <= largest <= 8, got {list(self.people)}")
        if not 1 <= self.steps[0] <= self.steps[1] <= self.people[1]:
            raise ValueError(f"steps must be two numbers with 1 <= fewest <= most <= the largest number of people, got {list(self.steps)}")
        if not 0 <= self.unknown[0] <= self.unknown[1] < self.people[0]:
            raise ValueError(
                f"unknown must be two numbers with 0 <= fewest <= most < the smallest number of people, got {list(self.unknown)}"
            )
        for name, low_high in (("unknown_changes", self.unknown_changes), ("changes", self.changes)):
            if not 1 <= low_high[0] <= low_high[1] <= 4:
                raise ValueError(f"{name} must be two numbers with 1 <= fewest <= most <= 4, got {list(low_high)}")
        return self


class TaskSettings(Settings):
    """Where problems come from."""

    kind: Literal["stories", "gsm8k", "svamp", "math", "jsonl"] = "stories"
    path: str | None = None
    """A file or folder with the data. For `gsm8k`: a folder with train.jsonl and test.jsonl; `svamp`: SVAMP.json or its
    folder; `math` and `jsonl`: a folder with train.jsonl, test.jsonl and perhaps dev.jsonl (or one file, split by hash)."""
    hub: str | None = None
    """A dataset name on the Hugging Face Hub, instead of `path`. None of both: the task's usual Hub name."""
    n_dev: int = Field(500, ge=1)
    """Questions held out of *train* for the stopping rule and for tuning (real data without a dev split)."""
    max_train: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    """Use only the first so many questions (order fixed by a hash, so it is a random subset)."""
    keep_annotations: bool = True
    """GSM8K: keep `<<48/2=24>>` in worked solutions, or strip them as a whole."""
    merge_answer_line: bool = False
    """Let the answer line `#### N` be part of the step before (method, notation)."""
    scratch_path: str | None = None
    """`svamp`: the MAWPS/ASDiv-A CSV that a base model trained from nothing learns from."""
    stories: StoriesSettings = StoriesSettings()


class ScratchModelSettings(Settings):
    """A small Llama trained from nothing inside the run (needs a task that supplies base documents)."""

    hidden_size: int = Field(128, ge=16)
    n_layers: int = Field(4, ge=1)
    n_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(384, ge=16)
    max_positions: int = Field(1024, ge=128)
    rope_theta: float = Field(300.0, gt=1)
    """Base of the rotary positions. Texts are short here: with the usual 10,000 most angles hardly turn, and reading is learnt later."""
    vocab_size: int = Field(1024, ge=300)
    n_tokens: int = Field(3_600_000, ge=1)
    """Tokens of base documents to train on."""
    train: TrainSettings = TrainSettings(learning_rate=3e-3, optimizer="muon", batch_size=64)

    @model_validator(mode="after")
    def _heads(self) -> ScratchModelSettings:
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(f"hidden_size must be a multiple of 2 * n_heads, got {self.hidden_size} and {self.n_heads}")
        return self


class BaseModelSettings(Settings):
    """The pretrained base: a Hugging Face causal LM, or a small one trained from nothing."""

    model: str | None = None
    """A folder or Hub name for `AutoModelForCausalLM`; none: train `scratch`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    scratch: ScratchModelSettings = ScratchModelSettings()


class EngineSettings(Settings):
    """How completions are sampled, and on what reward models score (docs/engines.md).

    `device`, `dtype` and `scoring_tokens` also hold for reward models, which always score in this process.
    """

    kind: Literal["torch", "http", "vllm", "ray"] = "torch"
    """`torch`: transformers in this process; `http`: an OpenAI-compatible completions server; `vllm`: vLLM in this process; `ray`: a
    pool of `inner` engines on one or many machines."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_rows: int = Field(256, ge=1)
    """Rows decoded together."""
    scoring_tokens: int = Field(16384, ge=256)
    """Padded tokens per batch when solutions are scored."""
    url: str | None = None
    """http: where the server is, such as `http://localhost:8000/v1`; `{name}` is the model's name in the run (student, refiner, …)."""
    urls: dict[str, str] = {}
    """http: other servers for some models, by the model's name in the run."""
    model: str = "{name}"
    """http: the model's name on the server; `{name}` as above, `{path}` the model's folder or Hub name."""
    models: dict[str, str] = {}
    """http: other names on the server for some models, by the model's name in the run."""
    api_key_env: str = "GLORE_API_KEY"
    """http: the environment variable that holds the API key, if the server wants one. Keys are never settings."""
    concurrency: int = Field(64, ge=1, le=4096)
    """http: requests under way at once."""
    timeout_seconds: float = Field(600.0, gt=0)
    """http: for one request, its answer included."""
    wait_seconds: float = Field(0.0, ge=0)
    """http: wait so long for the server to serve a model before giving up (it may be loading, or be started meanwhile)."""
    prompt: Literal["tokens", "text"] = "tokens"
    """http: send prompts as token ids of the model's own tokenizer, as every other engine does, or as text that the server encodes."""
    siblings: Literal["separate", "together"] = "separate"
    """http: the completions of one prompt as requests of their own, each with its seed, or as one request with `n`."""
    extensions: bool = True
    """http: send `top_k`, `min_p` and `repetition_penalty` too, which are not OpenAI's: servers such as vLLM else take the model's
    generation_config.json for what is not said."""
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
    """ray: the cluster, such as `auto` or `10.0.0.1:6379`; none: the one in RAY_ADDRESS or already running here, else a new one
    on this machine; `local`: a new one in any case."""
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    """ray: what each worker takes of its machine."""
    ship_models: bool = False
    """ray: send model files to the workers through the object store; else they open the same path, so it must be on a shared folder."""

    @property
    def sampler(self) -> EngineSettings:
        """The settings of the engine that draws: this one's, or those inside a pool."""
        if self.kind != "ray":
            return self
        return self.inner or EngineSettings(device=self.device, dtype=self.dtype, max_rows=self.max_rows)

    @model_validator(mode="after")
    def _fits_kind(self) -> EngineSettings:
        for kinds, fields in _ENGINE_FIELDS.items():
            for name in fields if self.kind not in kinds else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for engines of kind {' or '.join(kinds)}, got kind {self.kind}; remove it or change kind")
        if self.kind == "http" and self.url is None:
            raise ValueError("an engine of kind http needs url, such as http://localhost:8000/v1")
        for value in (self.url or "", *self.urls.values()):
            if value and not value.startswith(("http://", "https://")):
                raise ValueError(f"url begins with http:// or https://, got {shown(value)}")
        for template in (self.url or "", self.model, *self.urls.values(), *self.models.values()):
            if set(re.findall(r"{(.*?)}", template)) - {"name", "path"}:
                raise ValueError(f"only {{name}} and {{path}} are filled in, got {shown(template)}")
        if self.inner is not None and self.inner.kind == "ray":
            raise ValueError("inner can't be of kind ray itself; use torch, http or vllm")
        return self


_ENGINE_FIELDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("http",): (
        *("url", "urls", "model", "models", "api_key_env", "concurrency", "timeout_seconds", "wait_seconds"),
        *("prompt", "siblings", "extensions"),
    ),
    ("http", "ray"): ("retries",),
    ("vllm",): ("tensor_parallel", "gpu_memory", "context"),
    ("ray",): ("workers", "inner", "address", "cpus_per_worker", "gpus_per_worker", "ship_models"),
}
"""Which kinds read a setting: elsewhere it must keep its default, so that none is set in vain."""


class ExpertIterationSettings(Settings):
    """Method 1: sample, keep what is right, fine-tune the base again."""

    samples: int = Field(96, ge=1)
    """K solutions per training question and round."""
    questions: int = Field(0, ge=0)
    """Training questions to sample from; 0: all. They are the last of the seeded order whose first `reward.questions` the reward
    models use: where both fit, the reward models learn from questions that the student was not trained on."""
    temperature: float = Field(1.0, gt=0)
    max_rounds: int = Field(5, ge=0, le=20)
    min_gain: float = Field(0.005, ge=0)
    """Stop when greedy accuracy on dev gains less than this (a share)."""
    max_per_question: int = Field(0, ge=0)
    """At most so many distinct right solutions of a question go into fine-tuning (all rounds together); 0: all."""


class StudentSettings(Settings):
    """SFT and expert iteration."""

    bootstrap: Literal["sft", "prompt"] = "sft"
    """`sft`: fine-tune on worked solutions first; `prompt`: none there, sample from the 1-shot prompted base."""
    sft: TrainSettings = TrainSettings()
    ei: ExpertIterationSettings = ExpertIterationSettings()
    ei_train: TrainSettings = TrainSettings()
    max_new_tokens: int = Field(300, ge=8)


class RewardModelSettings(Settings):
    """Data and training of ORM, Balanced ORM and SORM."""

    questions: int = Field(0, ge=0)
    """Training questions that are sampled from; 0: all."""
    samples: int = Field(96, ge=1)
    """K solutions per question for the ORM."""
    draft_samples: int = Field(8, ge=1)
    """Of those, so many drafts per question get SORM labels."""
    temperature: float = Field(1.0, gt=0)
    init: Literal["student", "base"] = "student"
    """Which weights the reward models start from."""
    orm: TrainSettings = TrainSettings()
    sorm: TrainSettings = TrainSettings()


class LabelSettings(Settings):
    """Method 3: SORM labels."""

    rollouts: int = Field(8, ge=1)
    """K verifying rollouts per prefix."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(300, ge=8)
    consistency: Literal["number", "substring", "off"] = "number"
    """Match results on number boundaries (chosen), by literal substring (the paper), or not at all."""
    consistency_steps: Literal["all", "last"] = "all"
    """Results of all steps of the prefix, or of its last step only."""
    propagate: bool = True
    balance: bool = True
    full_counts: bool = False
    """Draw all K rollouts at every step instead of the exact backward scan (needed for soft labels and `propagate: false`)."""

    @model_validator(mode="after")
    def _possible(self) -> LabelSettings:
        if not self.propagate and not self.full_counts:
            raise ValueError("propagate: false needs full_counts: true, because the backward scan only finds the last positive step")
        return self


class RefinerSettings(Settings):
    """Method 4: pairs and training of the joint refiner."""

    init: Literal["student", "base"] = "base"
    global_mark: Literal["first", "none"] = "first"
    """`[BAD]` before S_1 in global pairs (chosen), or no mark."""
    global_pairs: Literal["one", "all"] = "one"
    """Each wrong draft with one random right solution (chosen), or with all."""
    train: TrainSettings = TrainSettings()


class EvaluationSettings(Settings):
    """Method 5 and 6: inference and evaluation."""

    threshold: float = Field(0.5, gt=0, lt=1)
    """T: a step with SORM at most this is bad; a draft with ORM at most this needs work."""
    aggregate: Literal["final", "mean", "weighted_mean", "weighted_mean_literal", "min", "product", "mean_last_two"] = "final"
    """Step scores to one score, for reranking (App. D)."""
    samples: int = Field(96, ge=3)
    """K samples per test question for the rerank curves and pass@K."""
    best_of: int = Field(3, ge=1)
    temperature: float = Field(1.0, gt=0)
    label_full_counts: bool = False
    bootstrap_samples: int = Field(2000, ge=100)


class RunConfig(Settings):
    """One run, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    runs_dir: str = "runs"
    seed: int = Field(0, ge=0)
    launch: str = ""
    """How trainings are started on several devices, such as `accelerate launch --config_file recipes/accelerate/fsdp.yaml`; empty: on one
    device, in this process. An optimiser step then has batch_size × gradient_accumulation × devices rows."""
    task: TaskSettings = TaskSettings()
    base: BaseModelSettings = BaseModelSettings()
    engine: EngineSettings = EngineSettings()
    student: StudentSettings = StudentSettings()
    reward: RewardModelSettings = RewardModelSettings()
    labels: LabelSettings = LabelSettings()
    refiner: RefinerSettings = RefinerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @property
    def run_dir(self) -> Path:
        """The run folder: `runs_dir/name`."""
        return Path(self.runs_dir) / self.name

    @model_validator(mode="after")
    def _combination(self) -> RunConfig:
        if self.base.model is None and self.task.kind not in ("stories", "svamp"):
            raise ValueError(
                f"task.kind: {self.task.kind} has no text to train a base model from nothing; set base.model to a model name or folder"
            )
        if self.base.model is None and self.task.kind == "svamp" and self.task.scratch_path is None:
            raise ValueError("task.kind: svamp without base.model trains from nothing and needs task.scratch_path (the MAWPS/ASDiv-A CSV)")
        if self.evaluation.best_of > self.evaluation.samples:
            raise ValueError(f"evaluation.best_of ({self.evaluation.best_of}) can't exceed evaluation.samples ({self.evaluation.samples})")
        if self.reward.draft_samples > self.reward.samples:
            raise ValueError(f"reward.draft_samples ({self.reward.draft_samples}) can't exceed reward.samples ({self.reward.samples})")
        return self


def load_config(recipe: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> RunConfig:
    """Read a recipe and apply dotted overrides such as `labels.rollouts=4` (values are YAML).

    Raises ConfigError naming the file, the key, the value and the mend.
    """
    path = Path(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't read the recipe {path}: {getattr(error, 'strerror', None) or error}; "
            "give the path of a YAML file such as recipes/quickstart.yaml"
        ) from error
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a YAML mapping of settings, got {shown(data)}")
    data = {key: _unshared(value) for key, value in data.items()}
    for override in overrides:
        _apply(data, override)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, str(path))) from error


def _parse_yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from error


def _unshared(node: object) -> object:
    """A copy in which every YAML alias has become a value of its own, so that an override changes one place only."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _apply(data: dict[object, object], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"an override is written key.path=value, got {shown(override)}; for example labels.rollouts=4")
    *parents, last = key.strip().split(".")
    node = data
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {shown(override)}: {name} is a single value in the recipe, so nothing can be set below it")
        node = child
    node[last] = _parse_yaml(value, f"override {shown(override)}")


def _explain(error: ValidationError, where: str) -> str:
    """The first complaints of pydantic as one line in our words, nearest keys suggested."""
    lines = []
    for item in error.errors()[:3]:
        path = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"unknown key {shown(path)}; {hint}")
        elif item["type"] == "value_error":
            lines.append(f"{path + ': ' if path else ''}{item['msg'].removeprefix('Value error, ')}")
        elif item["type"] == "missing":
            lines.append(f"{path} is required")
        else:
            lines.append(f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}, got {shown(item['input'])}")
    more = len(error.errors()) - len(lines)
    return f"{where}: " + "; ".join(lines) + (f" (and {more} more)" if more > 0 else "")


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for name in location:
        field = model.model_fields.get(str(name))
        if field is None:
            return []
        nested = [
            a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
