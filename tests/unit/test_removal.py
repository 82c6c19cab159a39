"""`keep: final`: a model goes when no stage to be computed opens it; a run stays complete and says
what must be made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from glore.cli.display import stages_table
from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import Stage, StageContext, plan_stages, removal, run_stages
from glore.pipeline.marks import read_done
from support.small_stages import contents, small_config

MADE = {"base": "base", "first": "m1", "second": "m2", "choice": "chosen"}
OPENED = {
    "base": (),
    "first": ("base",),
    "second": ("base", "m1"),
    "choice": ("m1", "m2"),
    "draw": ("chosen",),
    "judge": ("m1",),
}
READS = {"first": "student.sft.learning_rate", "judge": "evaluation.threshold"}


def stages_of(ran: list[str], spares: dict[str, tuple[str, ...]] | None = None) -> list[Stage]:
    """A chain of stages of which each makes a model and opens earlier ones. `ran` grows by the name
    of each that is computed; `spares`: model → readers that the stage `second` spares it.
    """

    def work(context: StageContext) -> None:
        ran.append(context.name)
        weights = [
            (context.model_dir(model) / "weights").read_text()
            for model in OPENED[context.name]
            if not (spares and context.name in spares.get(model, ()))
        ]
        if context.name in MADE:
            folder = context.new_model_dir(MADE[context.name])
            folder.mkdir(parents=True)
            (folder / "weights").write_text(f"{context.name}({','.join(weights)})")
        if context.name == "second":
            for model, readers in (spares or {}).items():
                context.spare(model, *readers)

    names = list(OPENED)
    return [
        Stage(
            name,
            work,
            inputs=tuple(names[max(0, i - 1) : i]),
            reads=(READS[name],) if name in READS else (),
            models=(MADE[name],) if name in MADE else (),
            delivers=("chosen",) if name == "choice" else (),
            opens=lambda _, name=name: OPENED[name],  # type: ignore[misc]
        )
        for i, name in enumerate(names)
    ]


def models(config: RunConfig) -> set[str]:
    return {p.name for p in (config.run_dir / "models").iterdir()}


def test_all_stay_by_default(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    run_stages(stages_of([]), config)
    assert models(config) == set(MADE.values())


def test_a_model_goes_after_its_last_reader_and_the_run_stays_complete(tmp_path: Path) -> None:
    seen: list[tuple[str, set[str]]] = []
    config, ran = small_config(tmp_path, keep="final"), list[str]()

    class Watch:
        def begin(self, what: str, total: int, unit: str) -> None: ...
        def advance(self, n: int = 1, tokens: int = 0) -> None: ...
        def note(self, message: str) -> None:
            if " took " in message:
                seen.append((message.split()[0], models(config)))

    run_stages(stages_of(ran), config, progress=Watch())
    assert [s for _, s in seen] == [
        {"base"},
        {"base", "m1"},
        {"base", "m1", "m2"},
        {"m1", "m2", "chosen"},
        {"m1", "chosen"},
        {"m1", "chosen"},
    ]
    assert models(config) == {"chosen"}
    assert ran == list(OPENED)
    mark = read_done(config.run_dir / "stages" / "first")
    assert mark is not None
    assert mark.removed == {"m1": "no stage after judge opens it"}
    before = contents(config.run_dir)
    for keep in ("final", "all"):
        run_stages(stages_of(ran), small_config(tmp_path, keep=keep))
        assert ran == list(OPENED), "nothing is computed again"
    assert {k: v for k, v in contents(config.run_dir).items() if k != "config.yaml"} == {
        k: v for k, v in before.items() if k != "config.yaml"
    }
    plans = {p.name: p for p in plan_stages(stages_of([]), config)}
    assert plans["first"].why == "complete; removed to save disk: models/m1"
    table = stages_table(list(plans.values()), config.run_dir)
    assert "done; removed to save disk: models/m2" in [
        cell.plain  # type: ignore[union-attr]
        for cell in table.columns[1].cells
    ]


def test_a_finished_run_can_be_made_smaller_afterwards(tmp_path: Path) -> None:
    ran: list[str] = []
    run_stages(stages_of(ran), small_config(tmp_path))
    run_stages(stages_of(ran), small_config(tmp_path, keep="final"), until="base")
    assert models(small_config(tmp_path)) == set(MADE.values()), "the stages after it are unknown"
    run_stages(stages_of(ran), small_config(tmp_path, keep="final"))
    assert models(small_config(tmp_path)) == {"chosen"}
    assert ran == list(OPENED)


def test_what_is_needed_again_is_made_again_when_asked_and_goes_again(tmp_path: Path) -> None:
    run_stages(stages_of([]), small_config(tmp_path, keep="final"))
    changed = small_config(tmp_path, keep="final", evaluation={"threshold": 0.25})
    plans = {p.name: p for p in plan_stages(stages_of([]), changed)}
    assert {n for n, p in plans.items() if p.state == "computed"} == {"base", "first", "judge"}
    assert plans["first"].why == "judge opens models/m1, which was removed"
    assert plans["base"].why == "first opens models/base, which was removed"
    ran: list[str] = []
    with pytest.raises(
        RunError, match=r"stage judge \(.*0\.5 → 0\.25; base, first, removed to save disk, too\)"
    ):
        run_stages(stages_of(ran), changed)
    assert ran == []
    run_stages(stages_of(ran), changed, redo=True)
    assert ran == ["base", "first", "judge"]
    assert models(changed) == {"chosen"}


def test_only_removed_models_are_missing(tmp_path: Path) -> None:
    """A stage without a result needs a removed model: no other results are at stake."""
    config = small_config(tmp_path, keep="final")
    run_stages(stages_of([]), config)
    shutil.rmtree(config.run_dir / "stages" / "judge")
    with pytest.raises(
        RunError,
        match=r"first opens models/base, which was removed to save disk \(keep=final\), so base, "
        r"first must be computed again, with the same settings; add --redo",
    ):
        run_stages(stages_of([]), config)


def test_a_stage_may_spare_a_model_its_later_readers(tmp_path: Path) -> None:
    spares = {"m1": ("choice", "judge"), "m2": ("nobody",)}
    config, ran = small_config(tmp_path, keep="final"), list[str]()
    run_stages(stages_of(ran, spares), config, until="second")
    assert models(config) == {"m2"}, "base has no reader left, and m1 none that is not spared"
    run_stages(stages_of(ran, spares), config)
    assert models(config) == {"chosen"}
    changed = small_config(tmp_path, keep="final", evaluation={"threshold": 0.25})
    again = [p.name for p in plan_stages(stages_of([]), changed) if p.state == "computed"]
    assert again == ["judge"], "it was spared m1, so nothing else is needed"


def test_a_kill_between_the_mark_and_the_removal_leaves_a_model_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    config = small_config(tmp_path, keep="final")
    with monkeypatch.context() as patch:
        patch.setattr(removal, "remove_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stages(stages_of([]), config)
    assert "base" in models(config)
    ran: list[str] = []
    run_stages(stages_of(ran), config)
    assert "base" not in ran
    assert models(config) == {"chosen"}


def test_a_model_that_an_adapter_changes_stays_with_it(tmp_path: Path) -> None:
    def work(context: StageContext) -> None:
        (model,) = (m for m in ("base", "adapter") if m == context.name)
        folder = context.new_model_dir(model)
        folder.mkdir(parents=True)
        (folder / "weights").write_text(model)
        if model == "adapter":
            (folder / "adapter_config.json").write_text(
                json.dumps({"base_model_name_or_path": "../base"})
            )

    def run_with(delivers: Sequence[str], folder: Path) -> set[str]:
        config = small_config(folder, keep="final")
        run_stages(
            [
                Stage("base", work, models=("base",)),
                Stage(
                    "adapter",
                    work,
                    inputs=("base",),
                    models=("adapter",),
                    delivers=tuple(delivers),
                ),
            ],
            config,
        )
        return models(config)

    assert run_with(("adapter",), tmp_path / "kept") == {"base", "adapter"}


def test_a_stage_opens_only_what_it_declares(tmp_path: Path) -> None:
    def peek(context: StageContext) -> None:
        context.model_dir("base")

    stages = [*stages_of([]), Stage("peek", peek, inputs=("judge",), opens=lambda _: ("m1",))]
    with pytest.raises(ValueError, match=r"peek reads models/base.*does not declare"):
        run_stages(stages, small_config(tmp_path))
