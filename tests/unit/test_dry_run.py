"""What the dry run predicts: tokens from the real data, time from measured rates, disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from glore.cli.dry_run import data_note, disk_note, gpu_note, plan_table
from glore.config import RunConfig, ScratchModelSettings, TorchEngineSettings, load_config
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.records import Problem
from glore.stages import build_stages
from glore.stages.disk import DiskUse, disk_use, n_models, scratch_shapes
from glore.stages.estimates import refiner_tokens, round_train_tokens, sft_tokens
from glore.stages.gpu_time import rates_of, step_seconds
from glore.stages.workload import workload
from support.chat_tokenizers import chat_tokenizer
from support.small_stages import small_config


def config_of(folder: Path, **changes: object) -> RunConfig:
    return RunConfig.model_validate({"name": "t", "runs_dir": str(folder), **changes})


def own_data(folder: Path, n: int = 100) -> dict[str, object]:
    rows = [
        {"question": f"What is {i} plus one?", "answer": i + 1, "solution": f"{i} + 1 = {i + 1}"}
        for i in range(n)
    ]
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(file), "n_dev": 10}


def test_own_data_is_counted(tmp_path: Path) -> None:
    config = config_of(tmp_path, task=own_data(tmp_path), base={"model": "some/base"})
    found = workload(config)
    assert dict(found.questions) == {"train": 70, "dev": 10, "test": 20}
    assert (found.n_worked, found.is_counted) == (70, True)
    assert found.solution_steps == 2, "with the answer line"
    plans = {p.name: p for p in plan_stages(build_stages(config), config)}
    assert plans["test_drafts"].tokens == round(20 * found.solution_tokens)
    assert plans["sft"].tokens == round(
        70 * (found.question_tokens + found.solution_tokens) * config.student.sft.epochs
    )
    assert "70 train, 10 dev, 20 test" in data_note(config)
    assert "counted in the data" in data_note(config)


def test_without_rounds_the_student_is_the_sft_model_and_counts_once(tmp_path: Path) -> None:
    def planned(max_rounds: int, keep: str) -> tuple[dict[str, int | None], DiskUse]:
        config = config_of(tmp_path, keep=keep, student={"ei": {"max_rounds": max_rounds}})
        stages = build_stages(config)
        use = disk_use(config, stages)
        assert use is not None
        return {p.name: p.tokens for p in plan_stages(stages, config)}, use

    again = ("sft_samples", "sft_orm", "sft_test_drafts", "sft_test_samples")
    for rounds, is_drawn in ((0, False), (1, True)):
        tokens, use = planned(rounds, "all")
        assert [bool(tokens[name]) for name in again] == [is_drawn] * 4
        assert tokens["test_samples"]
        assert planned(rounds, "final")[1].most <= use.most
    size = planned(0, "final")[1].at_the_end
    assert planned(0, "all")[1].n_models == 7, "base, sft, student, three reward models, refiner"
    assert planned(0, "final")[1].n_models == 4
    assert planned(1, "final")[1].at_the_end == size


def test_a_chat_counts_its_template_and_its_system_prompt(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tokenizer = chat_tokenizer("smollm2")
    tokenizer.save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    system = "Answer in short steps. " * 20

    def tokens(**prompt: object) -> float:
        base = {"model": str(model)}
        config = config_of(tmp_path, task=own_data(tmp_path), base=base, prompt=prompt)
        return workload(config).question_tokens

    n_system = len(tokenizer(system)["input_ids"])
    assert tokens(style="chat", system=system) > n_system + 10
    assert tokens(style="chat") < n_system


@pytest.mark.parametrize(
    ("settings", "n_rows"),
    [
        ({"max_steps": 12, "batch_size": 8}, 12 * 8),
        ({"max_steps": 3, "batch_size": 16, "gradient_accumulation": 2, "epochs": 9.0}, 3 * 2 * 16),
        ({"max_steps": 2, "batch_size": 512}, 2 * 70),
    ],
)
def test_a_training_that_is_capped_counts_its_steps(
    tmp_path: Path, settings: dict[str, float], n_rows: int
) -> None:
    trainings = {"student": {"sft": settings}, "refiner": {"train": settings}}
    config = config_of(tmp_path, task=own_data(tmp_path), base={"model": "some/base"}, **trainings)
    found = workload(config)
    row = found.question_tokens + found.solution_tokens
    assert sft_tokens(config) == round(n_rows * row)
    if settings["batch_size"] < 70:  # the refiner has more rows than there are questions
        assert refiner_tokens(config) == round(n_rows * (row + found.solution_tokens))


def test_a_packed_training_that_is_capped_reads_full_batches(tmp_path: Path) -> None:
    sft = {"max_steps": 5, "batch_tokens": 1024}
    config = config_of(
        tmp_path, task=own_data(tmp_path), base={"model": "some/base"}, student={"sft": sft}
    )
    assert 0.9 * 5 * 1024 < sft_tokens(config) <= 5 * 1024


def test_data_that_is_elsewhere_is_assumed_and_bad_data_is_left_to_its_stage(
    tmp_path: Path,
) -> None:
    hub = config_of(tmp_path, task={"kind": "gsm8k"}, base={"model": "some/base"})
    assert workload(hub).questions["train"] == 7473
    assert "assumed" in data_note(hub)
    task = own_data(tmp_path)
    Path(str(task["path"])).write_text("{}\n")
    bad = config_of(tmp_path, task=task, base={"model": "some/base"})
    assert not workload(bad).is_counted


def test_time_is_predicted_from_finished_stages_of_the_same_kind(tmp_path: Path) -> None:
    def work(context: StageContext) -> None:
        context.write([], Problem)
        context.count(tokens=100)
        for model in context_models.get(context.name, ()):
            context.new_model_dir(model).mkdir(parents=True)
            (context.new_model_dir(model) / "weights").write_text("w")

    context_models = {"train": ("a",)}
    stages = [
        Stage("draw", work, estimate=lambda c: 100),
        Stage("train", work, inputs=("draw",), models=("a",), estimate=lambda c: 100),
        Stage("draw again", work, inputs=("train",), estimate=lambda c: 300),
        Stage("train again", work, inputs=("train",), models=("b",), estimate=lambda c: 50),
    ]
    config = small_config(tmp_path)
    unknown = plan_table(plan_stages(stages, config), "run")
    assert [*unknown.columns[4].cells][-1].plain == ""  # type: ignore[union-attr]
    run_stages(stages, config, until="train")
    plans = [
        dataclasses.replace(p, done=dataclasses.replace(p.done, seconds=s))
        if p.done and (s := {"draw": 10.0, "train": 50.0}[p.name])
        else p
        for p in plan_stages(stages, config)
    ]
    times = [cell.plain for cell in plan_table(plans, "run").columns[4].cells]  # type: ignore[union-attr]
    assert times == ["", "", "30 s", "25 s", "55 s"]


@pytest.mark.parametrize("changes", [{}, {"n_layers": 2, "hidden_size": 64, "n_heads": 2}])
def test_disk_of_a_base_from_nothing_is_that_of_its_weights(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = ScratchModelSettings.model_validate(changes)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings.vocab_size,
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.n_layers,
            num_attention_heads=settings.n_heads,
            intermediate_size=settings.intermediate_size,
            tie_word_embeddings=False,
        )
    )
    assert scratch_shapes(settings) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    config = config_of(tmp_path, base={"scratch": changes})
    stages = build_stages(config)
    assert n_models(stages) == 1 + 1 + config.student.ei.max_rounds + 6
    note = disk_note(config, stages)
    assert note.startswith(f"disk: {n_models(stages)} models, ")
    elsewhere = config_of(tmp_path, task={"kind": "gsm8k"}, base={"model": "some/base"})
    assert "each as large as the base model" in disk_note(elsewhere, build_stages(elsewhere))


def test_the_rehearsal_counts_its_questions_and_touches_every_stage(tmp_path: Path) -> None:
    """recipes/small.yaml on its 100 questions; every training is capped."""
    root = Path(__file__).parents[2]
    questions = f"task.path={root / 'examples' / 'questions.jsonl'}"
    config = load_config(
        root / "recipes" / "small.yaml", [questions, "base.model=some/base", "engine.device=cpu"]
    )
    found = workload(config)
    assert sum(found.questions.values()) == 100
    assert found.n_worked == found.questions["train"]
    quickstart = load_config(root / "recipes" / "quickstart.yaml")
    assert {s.name for s in build_stages(config)} == {s.name for s in build_stages(quickstart)}
    trainings = (
        config.student.sft,
        config.student.ei_train,
        config.reward.orm,
        config.reward.sorm,
        config.refiner.train,
    )
    assert all(0 < training.max_steps <= 20 for training in trainings)


def llama_shapes(
    hidden: int, inner: int, cached: int, layers: int, vocabulary: int, tied: bool
) -> dict[str, tuple[int, ...]]:
    layer = {
        **{f"self_attn.{name}.weight": (hidden, hidden) for name in "qo"},
        **{f"self_attn.{name}.weight": (cached, hidden) for name in "kv"},
        **{f"mlp.{name}.weight": (inner, hidden) for name in ("gate", "up")},
        "mlp.down.weight": (hidden, inner),
        "norm1.weight": (hidden,),
        "norm2.weight": (hidden,),
    }
    return {
        "model.embed_tokens.weight": (vocabulary, hidden),
        **{f"model.layers.{n}.{name}": s for n in range(layers) for name, s in layer.items()},
        "model.norm.weight": (hidden,),
        **({} if tied else {"lm_head.weight": (vocabulary, hidden)}),
    }


def test_rates_of_the_measured_shape_are_the_measured_ones() -> None:
    small = llama_shapes(576, 1536, 192, 30, 49152, tied=True)
    for rows, drawn in ((256, 58_500), (1024, 142_500), (5000, 142_500), (128, 29_250)):
        found = rates_of(small, rows, checkpoints=False)
        assert found == pytest.approx((209_497, drawn, drawn), rel=1e-6)


def test_rates_of_a_large_shape_follow_operations_and_bytes() -> None:
    """Mistral 7B, by hand: 7.242e9 weights, 8.85 times the small shape's outputs of layers."""
    found = rates_of(llama_shapes(4096, 14336, 1024, 32, 32000, tied=False), 256, checkpoints=True)
    assert found.trained == pytest.approx(209_497 * 134.515e6 / 7.2417e9 * 0.75, rel=1e-3)
    tokens, more = 58_500 * 0.00218, 7.2417e9 - 134.515e6  # 128 tokens a step
    reading, products = 2 * more / 4.2e12, 2 * more * tokens / 780e12
    assert reading > products
    assert found.drawn_better == pytest.approx(tokens / (0.00218 + reading), rel=1e-3)
    worse = 8.849 * 0.00218 + reading + products
    assert found.drawn_worse == pytest.approx(tokens / worse, rel=1e-3)


def test_the_step_measured_with_a_larger_model_lies_between_the_cases() -> None:
    """TinyLlama's shape, 1,024 rows: 5.06 ms (docs/results.md)."""
    layer = 2 * 2048 + 2 * 256 + 2 * 5632 + 2048
    worse, better = step_seconds(1_100_048_384, 22 * layer, 1024)
    assert better < 0.00506 < worse
    assert worse < 2 * better


def test_a_large_base_on_a_gpu_has_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = llama_shapes(4096, 14336, 1024, 32, 32000, tied=False)
    monkeypatch.setattr("glore.stages.disk.weight_shapes", lambda config: shapes)
    monkeypatch.setattr("glore.stages.gpu_time.weight_shapes", lambda config: shapes)
    config = config_of(tmp_path, task=own_data(tmp_path), base={"model": "some/base"})
    plans = plan_stages(build_stages(config), config)
    note = gpu_note(config, plans)
    assert note.startswith("time on one H200, estimated from the rates of smaller models")
    assert "not measured: training at 3,891 tokens/s" in note
    done = tuple(dataclasses.replace(plan, state="reused") for plan in plans)
    assert "tokens/s, 0 s; sampling at" in gpu_note(config, done)
    on_cpu = config.model_copy(update={"engine": TorchEngineSettings(device="cpu")})
    assert gpu_note(on_cpu, plans) == ""
    shapes = llama_shapes(576, 1536, 192, 30, 49152, tied=True)
    assert gpu_note(config, plans) == ""


def test_rounds_train_on_at_most_the_capped_solutions(tmp_path: Path) -> None:
    def tokens(most: int, number: int) -> int:
        ei = {"samples": 10, "max_per_question": most}
        student = {"ei": ei, "ei_train": {"epochs": 1}, "bootstrap": "prompt"}
        task, base = own_data(tmp_path), {"model": "some/base"}
        config = config_of(tmp_path, task=task, base=base, student=student)
        found = workload(config)
        return round(
            round_train_tokens(config, number) / (found.question_tokens + found.solution_tokens)
        )

    assert [tokens(0, 1), tokens(0, 2)] == [70 * 5, 70 * 10]
    assert [tokens(7, 1), tokens(7, 2), tokens(7, 3)] == [70 * 5, 70 * 7, 70 * 7]
