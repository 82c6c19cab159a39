"""Settings of each built-in kind of task. The last lines register them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from glore.config.kinds import Kinds
from glore.config.section import NEWER, LocalPath, Revision
from glore.config.stories import StoriesSettings
from glore.config.task import TaskSettings
from glore.errors import shown

__all__ = [
    "DatasetTaskSettings",
    "Gsm8kTaskSettings",
    "JsonlTaskSettings",
    "MathTaskSettings",
    "ReasoningGymTaskSettings",
    "StoriesTaskSettings",
    "SvampTaskSettings",
    "UsualData",
    "Worked",
]

_FLAT_DEFAULTS: dict[str, object] = {
    "path": None,
    "hub": None,
    "config": None,
    "revision": None,
    "n_dev": 500,
    "max_train": None,
    "max_test": None,
    "keep_annotations": True,
    "boxed": True,
    "scratch_path": None,
    "stories": {
        "people": [3, 5],
        "steps": [2, 4],
        "all_needed": False,
        "max_number": 60,
        "unknown": [0, 1],
        "unknown_changes": [2, 3],
        "options": [0, 0],
        "told_second": 0.0,
        "changes": [1, 2],
        "extra_relations": 1,
        "shuffled": 0.5,
        "turned": 0.15,
        "pairs": 0.5,
        "distractors": 1,
        "n_train": 3000,
        "n_dev": 300,
        "n_test": 600,
        "worked_share": 0.1,
    },
}
"""Fingerprints of built-in kinds hold the settings of all of them, since runs were made before each
kind had a class. A change here would make those runs count as different.
"""


class _BuiltinTaskSettings(TaskSettings):
    def fingerprint_fields(self) -> dict[str, object]:
        return {**_FLAT_DEFAULTS, **super().fingerprint_fields()}


class StoriesTaskSettings(_BuiltinTaskSettings):
    """The built-in stories."""

    kind: Literal["stories"] = "stories"
    stories: StoriesSettings = StoriesSettings()

    opener: ClassVar[str] = "glore.tasks.stories.task:open_stories"

    def expected_questions(self, split: str) -> int:
        stories = self.stories
        return {"train": stories.n_train, "dev": stories.n_dev, "test": stories.n_test}[split]

    @property
    def expected_worked_share(self) -> float:
        return self.stories.worked_share

    def check_base_text(self) -> None:
        pass

    def check_worked_solutions(self) -> None:
        if not self.stories.worked_share:
            raise ValueError(
                "student.bootstrap: sft needs worked solutions, got task.stories.worked_share 0; "
                "raise it, or set student.bootstrap to prompt"
            )


class UsualData(NamedTuple):
    """The data that a kind of task reads by default, and its size."""

    n_train: int
    n_test: int
    hub: str | None = None
    config: str | None = None
    whole_file: str | None = None
    """A file in the folder that has all problems."""
    may_be_cut: bool = True
    """Whether problems without splits may be split."""


class DatasetTaskSettings(_BuiltinTaskSettings):
    """Problems from a file, a folder or the Hugging Face Hub."""

    path: LocalPath | None = None
    """A file or folder with the data: train.jsonl, test.jsonl and perhaps dev.jsonl (or JSON, CSV,
    Parquet, or compressed), the output of `save_to_disk`, or a clone of a Hub dataset. `svamp`:
    also SVAMP.json; `math`, `jsonl`, `svamp`: also one file, which is split.
    """
    hub: str | None = None
    """A dataset name on the Hugging Face Hub, instead of `path` (`task.hub=null` drops a recipe's).
    Without both: the task's usual Hub name.
    """
    config: str | None = Field(None, min_length=1, max_length=200)
    """The configuration of a dataset on the Hub, or of a clone, that has several (`main` of GSM8K).
    """
    revision: Revision | None = None
    """Commit, tag or branch of a dataset on the Hub; none: the main branch at the time of reading.
    """
    n_dev: int = Field(500, ge=1)
    """Questions held out of *train* as dev, for the stopping rule and for tuning, if the data has
    no dev split.
    """
    max_train: int | None = Field(None, ge=1)
    """Most training questions to use: as `max_test`."""
    max_test: int | None = Field(None, ge=1)
    """Most questions to use: the first in an order fixed by a hash, so a random subset."""

    usual: ClassVar[UsualData]

    def local_data(self, *, base_text: bool = False) -> dict[str, str]:
        return {} if self.path is None else {"path": self.path}

    def expected_questions(self, split: str) -> int:
        train, test = self.usual.n_train, self.usual.n_test
        return {
            "train": min(train, self.max_train or train),
            "dev": self.n_dev,
            "test": min(test, self.max_test or test),
        }[split]

    @model_validator(mode="after")
    def _one_source(self) -> DatasetTaskSettings:
        if self.path is not None and self.hub is not None:
            raise ValueError(
                "path and hub are both set; keep the one to read from (task.hub=null drops the "
                "recipe's)"
            )
        if self.path is not None and self.revision is not None:
            raise ValueError(
                f"revision {shown(self.revision)} pins a dataset on the Hub, but path is set, "
                "whose content is fingerprinted anyway; drop the revision (task.revision=null)"
            )
        return self


class Gsm8kTaskSettings(DatasetTaskSettings):
    """GSM8K (Cobbe et al. 2021)."""

    kind: Literal["gsm8k"] = "gsm8k"
    keep_annotations: bool = True
    """Keep `<<48/2=24>>` in worked solutions, or strip them as a whole."""
    boxed: bool = True
    """The last `\\boxed{}` is the answer of a solution without a `####`, and one that contradicts
    the `####` makes the verdict unknown.
    """

    opener: ClassVar[str] = "glore.tasks.gsm8k:open_gsm8k"
    takes_form: ClassVar[bool] = True
    regrader: ClassVar[str | None] = "glore.tasks.data.dataset:regrade_numbers"
    usual: ClassVar[UsualData] = UsualData(
        7473, 1319, "openai/gsm8k", config="main", may_be_cut=False
    )


Worked = Literal["none", "equations", "columns"]


class SvampTaskSettings(DatasetTaskSettings):
    """SVAMP (Patel et al. 2021)."""

    kind: Literal["svamp"] = "svamp"
    boxed: bool = True
    """As for `gsm8k`."""
    scratch_path: LocalPath | None = None
    """The MAWPS/ASDiv-A CSV that a base model trained from nothing learns from."""
    mawps_path: Annotated[LocalPath | None, NEWER] = None
    """The MAWPS/ASDiv-A CSV whose problems join the training questions, after `max_train`. None of
    them has the wording of a dev or test question.
    """
    worked: Annotated[Worked | None, NEWER] = None
    """Worked solutions of the training questions, made from their equations. `equations`: a line
    per operation. `columns`: with the question's numbers named first and longer numbers computed by
    columns. Without a value: `columns` if there is a `scratch_path`, else `none`.
    """

    opener: ClassVar[str] = "glore.tasks.svamp.task:open_svamp"
    regrader: ClassVar[str | None] = "glore.tasks.data.dataset:regrade_numbers"
    unread: ClassVar[frozenset[str]] = frozenset({"merge_answer_line"})
    usual: ClassVar[UsualData] = UsualData(700, 300, "ChilleD/SVAMP", whole_file="SVAMP.json")

    @property
    def solutions(self) -> Worked:
        """`worked`, or what it is without a value."""
        return self.worked or ("none" if self.scratch_path is None else "columns")

    @property
    def expected_worked_share(self) -> float:
        return float(self.solutions != "none")

    def expected_questions(self, split: str) -> int:
        added = 3138 if split == "train" and self.mawps_path is not None else 0
        return super().expected_questions(split) + added

    def check_worked_solutions(self) -> None:
        if self.solutions == "none":
            raise ValueError(
                "student.bootstrap: sft needs worked solutions, and SVAMP has equations only; set "
                "task.worked to equations or columns, or student.bootstrap to prompt"
            )

    def local_data(self, *, base_text: bool = False) -> dict[str, str]:
        named = {"mawps_path": self.mawps_path}
        if base_text:
            named["scratch_path"] = self.scratch_path
        return super().local_data() | {k: path for k, path in named.items() if path is not None}

    def check_base_text(self) -> None:
        if self.scratch_path is None:
            raise ValueError(
                "task.kind: svamp without base.model trains from nothing and needs "
                "task.scratch_path (the MAWPS/ASDiv-A CSV)"
            )


class MathTaskSettings(DatasetTaskSettings):
    """MATH (Hendrycks et al. 2021). The last `\\boxed{}` always counts as an answer."""

    kind: Literal["math"] = "math"

    opener: ClassVar[str] = "glore.tasks.math:open_math"
    takes_form: ClassVar[bool] = True
    regrader: ClassVar[str | None] = "glore.tasks.math:regrade_math"
    usual: ClassVar[UsualData] = UsualData(12000, 500, "DigitalLearningGmbH/MATH-lighteval")


class JsonlTaskSettings(DatasetTaskSettings):
    """The user's own problems."""

    kind: Literal["jsonl"] = "jsonl"
    boxed: bool = True
    """As for `gsm8k`."""
    verifier: Annotated[str | None, NEWER] = None
    """What counts as right, instead of comparing answers: an entry point in `glore.verifiers` of an
    installed package. It names a function of a problem's answer and a solution's steps that returns
    a `glore.tasks.Grade`.
    """

    opener: ClassVar[str] = "glore.tasks.jsonl:open_jsonl"
    takes_form: ClassVar[bool] = True
    regrader: ClassVar[str | None] = "glore.tasks.jsonl:regrade_jsonl"
    usual: ClassVar[UsualData] = UsualData(1000, 200)


class ReasoningGymTaskSettings(TaskSettings):
    """Problems that the package reasoning-gym makes (`pip install 'glore[reasoning-gym]'`)."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    name: str = Field("gsm_symbolic", pattern=r"^[a-z0-9_]{1,64}$")
    """The set, as in `reasoning_gym.create_dataset(name, …)`. `gsm_symbolic` has worked solutions.
    """
    size: int = Field(2000, ge=10, le=1_000_000)
    """Items that are made. Of those with different questions, a fifth becomes the test set."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """The seed of the items. The run's own seed doesn't change them."""
    config: dict[str, bool | int | float | str | list[int | float | str]] = Field(
        default_factory=dict
    )
    """More arguments of the set, such as `{max_terms: 3}` of `chain_sum`."""
    grader: Literal["numbers", "own"] = "numbers"
    """`numbers`: as in `gsm8k`. `own`: by the set's `score_answer`, where 1 is right; it runs in a
    process of its own. A set that evaluates answers as code is refused.
    """
    n_dev: int = Field(200, ge=1)
    """Items held out of the training items as dev."""
    max_train: int | None = Field(None, ge=1)
    """Most training items to use: the first in an order fixed by a hash."""
    max_test: int | None = Field(None, ge=1)
    """Most test items to use: the same."""
    boxed: bool = True
    """As for `gsm8k`."""

    opener: ClassVar[str] = "glore.tasks.reasoning_gym.task:open_reasoning_gym"
    regrader: ClassVar[str | None] = "glore.tasks.reasoning_gym.task:regrade_reasoning_gym"

    def expected_questions(self, split: str) -> int:
        test = min(self.size // 5, self.max_test or self.size)
        train = self.size - self.size // 5 - self.n_dev
        train = max(1, min(train, self.max_train or train))
        return {"train": train, "dev": self.n_dev, "test": test}[split]

    @property
    def expected_worked_share(self) -> float:
        return float(self.name == "gsm_symbolic")


TaskSettings.kinds = Kinds(
    TaskSettings,
    StoriesTaskSettings,
    Gsm8kTaskSettings,
    SvampTaskSettings,
    MathTaskSettings,
    JsonlTaskSettings,
    ReasoningGymTaskSettings,
    group="glore.tasks",
    noun="tasks",
    section="task",
)
