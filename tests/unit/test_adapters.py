"""Adapters: a model saved as one is bit for bit the merged one, and what it rests on is checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft", reason="the extra peft is not installed")

from glore.adapter_folder import adapter_base, is_own_adapter
from glore.config import LoraSettings, TorchEngineSettings, TrainSettings
from glore.config.plugins import is_installed
from glore.engines.open import open_engine, open_scorer
from glore.engines.protocol import Request, SamplingParams
from glore.errors import ConfigError, ModelError
from glore.lora import MAX_ADAPTERS
from glore.models import load_causal_lm, load_step_model, load_tokenizer, merged_folder
from glore.progress import SilentProgress
from glore.training.finetune import train_causal_lm, train_step_classifier
from glore.training.training_setup import TrainingSetup
from support.tiny_training import lm_examples, save_base, step_examples


def settings(**lora: object) -> TrainSettings:
    return TrainSettings(
        learning_rate=1e-2,
        batch_size=4,
        max_length=64,
        max_steps=3,
        lora=LoraSettings.model_validate({"r": 4, "alpha": 8.0, **lora}),
    )


def setup(models: Path, name: str, dtype: str = "float32") -> TrainingSetup:
    return TrainingSetup(
        out_dir=models / name,
        work_dir=models.parent / "work" / name,
        seed=1,
        progress=SilentProgress(),
        dtype=dtype,
        device="cpu",
    )


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    found, expected = dict(one.state_dict()), dict(other.state_dict())
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_a_language_model_saved_as_an_adapter_is_the_merged_one(
    tmp_path: Path, architecture: str, dtype: str
) -> None:
    base = save_base(tmp_path / "models" / "base", architecture)
    models = base.parent
    train_causal_lm(base, lm_examples(), settings(), setup(models, "merged", dtype))
    train_causal_lm(base, lm_examples(), settings(save="adapter"), setup(models, "small", dtype))
    small = models / "small"
    assert not (small / "model.safetensors").exists()
    assert adapter_base(small) == str(base.resolve())
    for loaded in ("float32", "bfloat16"):
        assert same(load_causal_lm(small, loaded), load_causal_lm(models / "merged", loaded))
    with merged_folder(small) as folder:
        assert Path(folder) != small
        assert same(load_causal_lm(folder), load_causal_lm(models / "merged"))
    assert not Path(folder).exists()
    assert load_tokenizer(small).get_vocab() == load_tokenizer(models / "merged").get_vocab()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_a_reward_model_and_models_on_adapters_are_the_merged_ones(
    tmp_path: Path, architecture: str
) -> None:
    """A student as an adapter, a reward model and a refiner that start from it as adapters."""
    base = save_base(tmp_path / "models" / "base", architecture)
    models = base.parent
    made = {}
    for save in ("merged", "adapter"):
        student, orm, refiner = f"student-{save}", f"orm-{save}", f"refiner-{save}"
        given = settings(save=save)
        train_causal_lm(base, lm_examples(), given, setup(models, student))
        train_step_classifier(models / student, step_examples(), given, setup(models, orm))
        train_causal_lm(models / student, lm_examples(), given, setup(models, refiner))
        made[save] = (load_step_model(models / orm), load_causal_lm(models / refiner))
    assert all(same(*pair) for pair in zip(made["adapter"], made["merged"], strict=True))
    assert not [p for p in models.iterdir() if p.name.startswith(".")]


def test_the_engine_and_the_scorer_open_adapters(tmp_path: Path) -> None:
    base = save_base(tmp_path / "models" / "base")
    models, engine = base.parent, TorchEngineSettings(device="cpu")
    request = Request(
        "q", ("Question: Ana has 3 pens.\nAnswer:\n",), (0,), SamplingParams(max_new_tokens=8)
    )
    texts, scores = [], []
    for save in ("merged", "adapter"):
        train_causal_lm(base, lm_examples(), settings(save=save), setup(models, save))
        train_step_classifier(base, step_examples(), settings(save=save), setup(models, f"o{save}"))
        with open_engine(models / save, engine) as opened:
            texts.append([r.completions for r in opened.run([request])])
        with open_scorer(models / f"o{save}", engine) as scorer:
            scores.append(scorer.score([("Ana has 3 pens.", ("Ana : 12 + 7", "#### 15"))]))
    assert texts[0] == texts[1]
    assert scores[0] == scores[1]


def test_a_moved_run_keeps_its_adapters_and_another_base_is_refused(tmp_path: Path) -> None:
    models = save_base(tmp_path / "run" / "models" / "base").parent
    train_causal_lm(
        models / "base", lm_examples(), settings(save="adapter"), setup(models, "small")
    )
    shutil.move(tmp_path / "run", tmp_path / "moved")
    models = tmp_path / "moved" / "models"
    load_causal_lm(models / "small")
    shutil.rmtree(models / "base")
    with pytest.raises(ModelError, match=r"changes the model .*base', and it is not there; put"):
        load_causal_lm(models / "small")
    save_base(models / "base", "qwen2")
    with pytest.raises(ModelError, match=r"and config.json is another file; put that model back"):
        load_causal_lm(models / "small")


def test_a_damaged_or_foreign_adapter_is_one_line(tmp_path: Path) -> None:
    base = save_base(tmp_path / "models" / "base")
    models = base.parent
    train_causal_lm(base, lm_examples(), settings(save="adapter"), setup(models, "small"))

    def copied(name: str, **changes: object) -> Path:
        folder = Path(shutil.copytree(models / "small", models / name))
        (folder / "glore-digests.json").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        return folder

    weights = models / "small" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(ModelError, match="has changed since it was written"):
        load_causal_lm(models / "small")
    with pytest.raises(ModelError, match="does not fit its base model at "):
        load_causal_lm(copied("rank", r=2))
    with pytest.raises(ModelError, match="is not as glore writes it"):
        load_causal_lm(copied("odd", r="os.system"))
    foreign = copied("foreign")
    (foreign / "glore-base.json").unlink()
    assert not is_own_adapter(foreign)
    with pytest.raises(ModelError, match="holds an adapter"):
        load_causal_lm(foreign)
    loop = copied("loop", base_model_name_or_path="../loop")
    (loop / "glore-base.json").write_text("{}")
    with pytest.raises(ModelError, match=f"more than {MAX_ADAPTERS} adapters"):
        load_causal_lm(loop)


def test_nf4_without_bitsandbytes_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "models" / "base")
    monkeypatch.setattr("glore.lora.is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"bitsandbytes.*pip install 'glore\[qlora\]'"):
        train_causal_lm(base, lm_examples(), settings(base="nf4"), setup(base.parent, "q"))


@pytest.mark.skipif(
    not is_installed("bitsandbytes"), reason="the extra qlora (bitsandbytes) is not installed"
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_qlora_trains_on_4_bits_and_merges_into_whole_weights(tmp_path: Path) -> None:
    base = save_base(tmp_path / "models" / "base")
    models = base.parent
    longer = settings(base="nf4").model_copy(update={"max_steps": 30})
    short = train_causal_lm(base, lm_examples(), settings(base="nf4"), setup(models, "short"))
    report = train_causal_lm(base, lm_examples(), longer, setup(models, "q"))
    full = longer.model_copy(update={"lora": settings().lora})
    expected = train_causal_lm(base, lm_examples(), full, setup(models, "full")).final_loss
    assert report.final_loss < short.final_loss - 0.1, "it learns"
    assert report.final_loss == pytest.approx(expected, abs=0.1), "as on whole weights"
    train_causal_lm(
        base, lm_examples(), settings(base="nf4", save="adapter"), setup(models, "small")
    )
    assert same(load_causal_lm(models / "small"), load_causal_lm(models / "short"))
    trained, whole = load_causal_lm(models / "q"), load_causal_lm(base)
    assert "quantization_config" not in (models / "q" / "config.json").read_text()
    norms = {n: p for n, p in whole.named_parameters() if "norm" in n}
    assert all(torch.equal(trained.get_parameter(n), p) for n, p in norms.items())
    train_step_classifier(base, step_examples(), settings(base="nf4"), setup(models, "orm"))
    assert load_step_model(models / "orm").config.num_labels == 2
