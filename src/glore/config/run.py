"""The settings of a run: one section for each part of the method, and checks across sections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from glore.config.engine import AutoEngineSettings, EngineSettings
from glore.config.prompt import PromptSettings
from glore.config.section import NEWER, LocalPath, SamplingSettings, Settings
from glore.config.task import TaskSettings
from glore.config.task_kinds import StoriesTaskSettings
from glore.config.training import BaseModelSettings, TrainSettings
from glore.errors import shown

MAX_SHOTS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

__all__ = [
    "EvaluationSettings",
    "ExpertIterationSettings",
    "LabelSettings",
    "ReadyModelSettings",
    "RefinerSettings",
    "RewardModelSettings",
    "RunConfig",
    "StudentSettings",
]


class ExpertIterationSettings(SamplingSettings):
    """Method 1: sample, keep right solutions, fine-tune the base again."""

    samples: int = Field(96, ge=1)
    """K solutions per training question and round."""
    questions: int = Field(0, ge=0)
    """Training questions to sample from; 0: all. They are the last in a seeded order, as those of
    `student.sft_questions`.
    """
    max_rounds: int = Field(5, ge=0, le=20)
    """Most rounds; 0: none, so the student is the fine-tuned base."""
    min_gain: float = Field(0.005, ge=0)
    """Stop when greedy accuracy on dev gains less than this (a share)."""
    max_per_question: int = Field(0, ge=0)
    """Most distinct right solutions of a question used in fine-tuning (all rounds together); 0:
    all.
    """


class StudentSettings(Settings):
    """SFT and expert iteration."""

    bootstrap: Literal["sft", "prompt"] = "sft"
    """`sft`: fine-tune on worked solutions first; `prompt`: without worked solutions, sample from
    the base with worked examples in its prompt.
    """
    shots: Annotated[int | None, Field(ge=0, le=MAX_SHOTS), NEWER] = None
    """Worked examples in the prompt of the base, from worked training questions if there are any,
    else the built-in one; none: the built-in one.
    """
    sft: TrainSettings = TrainSettings()
    sft_questions: Annotated[int, Field(ge=0), NEWER] = 0
    """Training questions whose worked solutions the student learns from, in every round; 0: all.
    They are the last in a seeded order, of which the reward models use the first
    `reward.questions`. If the two don't overlap, the reward models learn from questions that the
    student was not trained on.
    """
    ei: ExpertIterationSettings = ExpertIterationSettings()
    ei_train: TrainSettings = TrainSettings()
    max_new_tokens: int = Field(300, ge=8)
    """Longest sampled solution, in tokens, of drafts and refinements too."""

    @model_validator(mode="after")
    def _only_with_its_bootstrap(self) -> StudentSettings:
        if self.sft_questions and self.bootstrap != "sft":
            raise ValueError(
                f"sft_questions {self.sft_questions} is for student.bootstrap sft, got "
                f"{self.bootstrap}; drop it (student.sft_questions=0) or set the bootstrap"
            )
        if self.shots is not None and self.bootstrap != "prompt":
            raise ValueError(
                f"shots {self.shots} is for student.bootstrap prompt, got {self.bootstrap}; drop "
                "it (student.shots=null) or set the bootstrap"
            )
        return self


class ReadyModelSettings(Settings):
    """Reward models that the run takes as they are, ours or another's, instead of training them."""

    orm: Annotated[LocalPath | None, NEWER] = None
    """A folder, a Hub name or NAME@REVISION; none: the ORM is trained."""
    sorm: Annotated[LocalPath | None, NEWER] = None
    """The same for the SORM."""
    orm_layout: Annotated[str | None, NEWER] = None
    """How questions and steps are written for that ORM (docs/reward-models.md); none: what its
    folder tells.
    """
    sorm_layout: Annotated[str | None, NEWER] = None
    """The same for that SORM."""

    @model_validator(mode="after")
    def _layout_of_a_model(self) -> ReadyModelSettings:
        for name, model in (("orm", self.orm), ("sorm", self.sorm)):
            layout: str | None = getattr(self, f"{name}_layout")
            if layout is not None and model is None:
                raise ValueError(
                    f"{name}_layout {shown(layout)} is for a ready model, and {name} is not set; "
                    "set it or drop the layout"
                )
            if model is not None and model.lower().endswith(".gguf"):
                raise ValueError(
                    f"{name} {shown(model)} is a GGUF file, which holds no reward model that glore "
                    "reads; give a folder with safetensors or a Hub name"
                )
        return self


class RewardModelSettings(SamplingSettings):
    """Data and training of ORM, Balanced ORM and SORM."""

    questions: int = Field(0, ge=0)
    """Training questions to sample from; 0: all."""
    samples: int = Field(96, ge=1)
    """K solutions per question for the ORM."""
    draft_samples: int = Field(8, ge=1)
    """How many of them get SORM labels."""
    init: Literal["student", "base"] = "student"
    """Which weights the reward models start from."""
    head: Annotated[Literal["classes", "label_token"], NEWER] = "classes"
    """How they say whether a step is good: with a head of two classes, or as a language model with
    a token, whose logits are compared where a step ends.
    """
    label_tokens: Annotated[str, NEWER] = "+ -"
    """Of `head: label_token`: texts of one token each that say good and bad, a blank between."""
    orm: TrainSettings = TrainSettings()
    sorm: TrainSettings = TrainSettings()
    ready: ReadyModelSettings = ReadyModelSettings()

    @model_validator(mode="after")
    def _two_tokens(self) -> RewardModelSettings:
        given = self.label_tokens.split()
        if len(given) != 2 or given[0] == given[1]:
            raise ValueError(
                "label_tokens are two different texts with a blank between, for good and for bad "
                f"steps, got {shown(self.label_tokens, 80)}; write for example '+ -' (three "
                "classes need neutral labels, which rollouts don't give: see glore train)"
            )
        return self


class LabelSettings(SamplingSettings):
    """Method 3: SORM labels."""

    rollouts: int = Field(8, ge=1)
    """K verifying rollouts per prefix."""
    max_new_tokens: int = Field(300, ge=8)
    """Longest verifying rollout, in tokens."""
    consistency: Literal["number", "substring", "off"] = "number"
    """Match results on number boundaries (chosen), by literal substring (the paper), or not at all.
    """
    consistency_steps: Literal["all", "last"] = "all"
    """Results of all steps of the prefix, or of its last step only."""
    propagate: bool = True
    """A good step makes every step before it good."""
    balance: bool = True
    """Leave out steps until good and bad ones of each length are as many."""
    balance_within: Annotated[Literal["all", "question"], NEWER] = "all"
    """As many positive as negative labels of each step in the whole training set, or also among the
    drafts of each question, so that a question alone says nothing about its labels.
    """
    full_counts: bool = False
    """Sample all K rollouts at every step instead of the exact backward scan (needed for soft
    labels and `propagate: false`).
    """

    @model_validator(mode="after")
    def _possible(self) -> LabelSettings:
        if not self.propagate and not self.full_counts:
            raise ValueError(
                "propagate: false needs full_counts: true, because the backward scan only finds "
                "the last positive step"
            )
        return self


class RefinerSettings(Settings):
    """Method 4: pairs and training of the joint refiner."""

    init: Literal["student", "base"] = "base"
    """Which weights the refiner starts from."""
    global_mark: Literal["first", "none"] = "first"
    """`[BAD]` before S_1 in global pairs (chosen), or no mark."""
    global_pairs: Literal["one", "all"] = "one"
    """Each wrong draft with one random right solution (chosen), or with all."""
    train: TrainSettings = TrainSettings()


class EvaluationSettings(SamplingSettings):
    """Methods 5 and 6: inference and evaluation."""

    threshold: float = Field(0.5, gt=0, lt=1)
    """T: a step with SORM at most this is bad; a draft with ORM at most this needs work."""
    aggregate: Literal[
        "final", "mean", "weighted_mean", "weighted_mean_literal", "min", "product", "mean_last_two"
    ] = "final"
    """Step scores to one score, for reranking (App. D)."""
    samples: int = Field(96, ge=3)
    """K samples per test question for the rerank curves and pass@K."""
    best_of: int = Field(3, ge=1)
    """Samples of the baseline that the refined drafts are compared with."""
    label_full_counts: bool = False
    """All K rollouts at every step of the test drafts, so that the ablation of the labels has a row
    without propagation.
    """
    bootstrap_samples: int = Field(2000, ge=100)
    """Draws for the 95 % intervals over questions."""


class RunConfig(Settings):
    """All settings of one run."""

    name: str
    """Name of the run's folder below `runs_dir`: 1 to 64 letters, digits, `.`, `_` and `-`,
    beginning with a letter or digit.
    """
    runs_dir: LocalPath = "runs"
    """The folder with all runs."""
    seed: int = Field(0, ge=0)
    """Every random choice follows from it."""
    launch: str = ""
    """The command that starts trainings on several devices, such as `accelerate launch
    --config_file recipes/accelerate/fsdp.yaml`; empty: train on one device, in this process. It is
    given on the command line at each start, since a recipe can't run commands. An optimiser step
    has batch_size × gradient_accumulation × devices rows.
    """
    keep: Literal["all", "final"] = "all"
    """Models that stay: all of them, or those that `glore refine` reads (student, refiner, ORM,
    SORM). `final` removes each other model as soon as no stage to be computed opens it.
    """
    track: Literal["none", "tensorboard"] = "none"
    """`tensorboard`: live curves in `log/` of the run folder, of every training (beside its own
    `report_to`) and of every sampling stage (rate, right answers, step labels). Extra
    `tensorboard`.
    """
    task: SerializeAsAny[TaskSettings] = StoriesTaskSettings()
    base: BaseModelSettings = BaseModelSettings()
    engine: SerializeAsAny[EngineSettings] = AutoEngineSettings()
    prompt: PromptSettings = PromptSettings()
    student: StudentSettings = StudentSettings()
    reward: RewardModelSettings = RewardModelSettings()
    labels: LabelSettings = LabelSettings()
    refiner: RefinerSettings = RefinerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @property
    def run_dir(self) -> Path:
        """The run folder: `runs_dir/name`."""
        return Path(self.runs_dir) / self.name

    @field_validator("launch", mode="before")
    @classmethod
    def _empty_launch(cls, launch: object) -> object:
        """`launch=` on the command line."""
        return "" if launch is None else launch

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name has 1 to 64 letters, digits, '.', '_' or '-' and begins with a letter or "
                f"digit, got {shown(name, 40)} ({len(name)} characters); choose another, and set "
                "runs_dir for another folder"
            )
        return name

    @model_validator(mode="after")
    def _combination(self) -> RunConfig:
        if self.base.model is None:
            self.task.check_base_text()
        if self.evaluation.best_of > self.evaluation.samples:
            raise ValueError(
                f"evaluation.best_of ({self.evaluation.best_of}) can't exceed evaluation.samples "
                f"({self.evaluation.samples})"
            )
        if self.reward.draft_samples > self.reward.samples:
            raise ValueError(
                f"reward.draft_samples ({self.reward.draft_samples}) can't exceed reward.samples "
                f"({self.reward.samples})"
            )
        if self.student.bootstrap == "prompt" and not self.student.ei.max_rounds:
            raise ValueError(
                "student.bootstrap: prompt needs a round of expert iteration, got "
                "student.ei.max_rounds 0; set it to 1 or more"
            )
        if self.student.bootstrap == "sft":
            self.task.check_worked_solutions()
        return self
