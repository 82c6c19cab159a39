"""Model folders from elsewhere: their code never runs, pickles are read only on request, and damage
or absurd sizes give one line.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glore import model_folder, models
from glore.digests import DIGESTS
from glore.errors import ModelError
from support import tiny_training as tiny

Weights = dict[str, torch.Tensor]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its own output layer."""
    return tiny.save_base(tmp_path_factory.mktemp("base"), "qwen2")


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "_said", set())


def edit(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v != "gone"}))


def edit_weights(folder: Path, change: Callable[[Weights], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def one_line(caught: pytest.ExceptionInfo[ModelError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 700
    return message


LOADERS = (models.load_tokenizer, models.load_causal_lm, models.new_step_model)


def with_code(folder: Path, marker: Path) -> Path:
    """A folder whose every module writes `marker` when it is imported, called or unpickled."""
    payload = f"import pathlib\npathlib.Path({str(marker)!r}).write_text('ran')\n"
    bases = {
        "Config": "LlamaConfig",
        "Model": "LlamaForCausalLM",
        "Token": "PreTrainedTokenizerFast",
    }
    classes = "from transformers import *\n" + "".join(
        f"class {name}({base}): pass\n" for name, base in bases.items()
    )
    for name in ("evil.py", "__init__.py", "custom_generate/generate.py", "configuration_evil.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(payload + classes)
    kinds = (
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForTokenClassification",
        "AutoModelForSequenceClassification",
    )
    edit(
        folder / "config.json",
        auto_map={"AutoConfig": "evil.Config", **dict.fromkeys(kinds, "evil.Model")},
    )
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Token", "evil.Token"]})
    return folder


def test_code_of_a_known_architecture_is_ignored_with_one_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_code(folder, tmp_path / "marker")
    with caplog.at_level(logging.WARNING):
        tokenizer, model, steps = (load(folder) for load in LOADERS)
    assert not (tmp_path / "marker").exists()
    (said,) = [m for m in caplog.messages if "its own code" in m]
    assert "evil.Config" in said
    assert type(model).__module__.startswith("transformers.models.qwen2")
    models.save_model(model, tokenizer, tmp_path / "made", "")
    models.save_model(steps, tokenizer, tmp_path / "steps", "")
    texts = [
        p.read_text() for made in ("made", "steps") for p in (tmp_path / made).glob("*config.json")
    ]
    assert len(texts) >= 4
    assert [t for t in texts if "auto_map" in t or "evil" in t] == [], (
        "what is made from it asks for no code"
    )


LOAD_ALL = """
import sys
from glore import models
for load in sys.argv[2:]:
    try:
        getattr(models, load)(sys.argv[1])
        print("loaded")
    except models.ModelError as error:
        print("REFUSED", error)
"""


@pytest.mark.parametrize("known", [True, False])
def test_no_prompt_appears_even_if_stdin_answers_yes(
    folder: Path, tmp_path: Path, known: bool
) -> None:
    with_code(folder, tmp_path / "marker")
    if not known:
        edit(folder / "config.json", model_type="evil")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(folder), *(load.__name__ for load in LOADERS)],
        check=True,
        input="y\n" * 100,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert not (tmp_path / "marker").exists()
    assert "y/N" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    if known:
        assert lines == ["loaded"] * 3
        assert "its own code (evil.Config" in done.stderr
    else:
        assert len(lines) == 3
        assert [
            line
            for line in lines[1:]
            if "REFUSED" not in line or "it needs code of its own (evil.Config" not in line
        ] == []


def test_a_kernel_that_a_file_names_is_not_fetched(folder: Path) -> None:
    edit(
        folder / "config.json",
        attn_implementation="evil/kernel",
        _attn_implementation="evil/kernel",
        experts_implementation="evil/other",
    )
    assert "evil" not in str(models.load_causal_lm(folder).config._attn_implementation)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickled_weights_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil(tmp_path / "marker")}, folder / name)
    for load in (models.load_causal_lm, models.new_step_model):
        with pytest.raises(ModelError) as caught:
            load(folder)
        message = one_line(caught)
        assert (
            f"its weights are pickled ('{name}'), and pickles can run code when they are "
            "read; give a model in safetensors" in message
        )
        assert ("base.model=" in message) == (name == "pytorch_model.bin")
    assert not (tmp_path / "marker").exists()
    edit(folder / "config.json", transformers_weights="adapter_model.bin")
    with pytest.raises(
        ModelError, match=r"its config\.json names the weights 'adapter_model\.bin'"
    ):
        models.load_causal_lm(folder)


def test_pickled_weights_requested_by_name_are_read_without_running_code(
    base: Path, folder: Path, tmp_path: Path
) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(weights, path)
    again, tokenizer = models.load_causal_lm(path), models.load_tokenizer(path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(models.load_causal_lm(base).parameters(), again.parameters(), strict=True)
    )
    assert tokenizer("12").input_ids == models.load_tokenizer(base)("12").input_ids
    torch.save({**weights, "lm_head.weight": weights["lm_head.weight"].to(torch.int8)}, path)
    with pytest.raises(ModelError, match=r"has weights of type torch\.int8: lm_head\.weight;"):
        models.load_causal_lm(path)
    torch.save({**weights, "lm_head.weight": Evil(tmp_path / "marker")}, path)
    with pytest.raises(ModelError, match="can't load a causal language model") as caught:
        models.load_causal_lm(path)
    one_line(caught)
    assert not (tmp_path / "marker").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Evil(tmp_path / "marker"), folder / name)
    for load in LOADERS:
        load(folder)
    assert not (tmp_path / "marker").exists()


def test_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil/base"})
    )
    torch.save(Evil(tmp_path / "marker"), folder / "adapter_model.bin")
    for load in LOADERS:
        with pytest.raises(
            ModelError,
            match=r"it holds an adapter \(adapter_config\.json\); merge it into its base",
        ):
            load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="merge it into its base"):
        models.load_causal_lm(folder)
    assert not (tmp_path / "marker").exists()


def test_an_index_names_files_inside_the_folder_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    for name in (
        "../model.safetensors",
        str(folder.parent / "model.safetensors"),
        "pytorch_model.bin",
    ):
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": name}})
        )
        with pytest.raises(ModelError, match=r"which is no \.safetensors file in the folder"):
            models.load_causal_lm(folder)


def test_shards_are_read(base: Path, folder: Path) -> None:
    models.load_causal_lm(base).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    again = models.load_causal_lm(folder)
    assert all(
        torch.equal(a, b)
        for a, b in zip(models.load_causal_lm(base).parameters(), again.parameters(), strict=True)
    )


ABSURD = [
    *[
        {key: value}
        for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for value in (10**12, 1e12, 10**4000)
    ],
    *(
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 9_000},
        {"num_labels": 10**9},
        {"num_key_value_heads": 10**12},
    ),
    *(
        {"vocab_size": float("nan")},
        {"vocab_size": float("inf")},
        {"text_config": {"num_hidden_layers": 10**10}},
        {"vocab_size": 2 * 10**9},
    ),
    *({"max_position_embeddings": 10**12}, {"intermediate_size": 2**30}),
]


@pytest.mark.parametrize(
    "changes", ABSURD, ids=lambda c: f"{next(iter(c))}={str(next(iter(c.values())))[:20]}"
)
def test_absurd_sizes_are_refused_before_anything_is_made(
    folder: Path, changes: dict[str, object]
) -> None:
    edit(folder / "config.json", **changes)
    begun = time.monotonic()
    with pytest.raises(
        ModelError, match=r"its config\.json sets \w+ to .* (correct the file|right weights)$"
    ) as caught:
        models.load_causal_lm(folder)
    one_line(caught)
    if "at most" in str(caught.value):
        with pytest.raises(ModelError, match=r"config\.json says"):
            models.load_tokenizer(folder)
    assert time.monotonic() - begun < 5


def test_sizes_that_do_not_fit_the_weights(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=64)
    with pytest.raises(
        ModelError,
        match=r"its config\.json and its weights have different sizes; "
        r"give a config\.json and weights of one model",
    ):
        models.load_causal_lm(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"a":' * 50_000,
        b'{"vocab_size": 1' + b"0" * 5000 + b"}",
        b" " * (1 << 25),
    ],
)
def test_a_config_that_is_none(folder: Path, text: bytes) -> None:
    (folder / "config.json").write_bytes(text)
    for load in LOADERS:
        with pytest.raises(
            ModelError,
            match=r"can't load a .*: its config\.json (can't be read|holds no JSON object)",
        ) as caught:
            load(folder)
        one_line(caught)


def to_integers(weights: Weights) -> None:
    weights.update({name: tensor.to(torch.int8) for name, tensor in weights.items()})


def spoiled(value: float) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights["model.norm.weight"][3] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            to_integers,
            "has weights of type I8: lm_head.weight and 26 more; weights must be floats",
        ),
        (
            lambda w: w.update({"model.norm.weight": w["model.norm.weight"].to(torch.int64)}),
            "has weights of type I64: model.norm.weight;",
        ),
        (
            spoiled(float("nan")),
            "not finite (NaN or infinity): model.norm.weight; give another copy",
        ),
        (
            spoiled(float("-inf")),
            "not finite (NaN or infinity): model.norm.weight; give another copy",
        ),
        (
            lambda w: w.update(extra=torch.ones(3)),
            "its files hold more weights: extra; give the model that its config.json describes",
        ),
        (
            lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.ones(48, 32)}),
            "its files hold more weights: model.layers.2",
        ),
        (
            lambda w: w.update({"score.weight": torch.ones(2, 32)}),
            "its files hold more weights: score.weight;",
        ),
    ],
)
def test_weights_that_are_no_model_are_refused(
    folder: Path, change: Callable[[Weights], object], words: str
) -> None:
    edit_weights(folder, change)
    with pytest.raises(ModelError) as caught:
        models.load_causal_lm(folder)
    assert words in one_line(caught)
    if "score" not in words:
        with pytest.raises(ModelError):
            models.new_step_model(folder)


def test_what_older_releases_saved_is_not_left_over(folder: Path) -> None:
    def change(weights: Weights) -> None:
        for layer in range(2):
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
            weights[f"model.layers.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
            weights[f"model.layers.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        weights["model.position_ids"] = torch.arange(8)

    edit_weights(folder, change)
    for load in (models.load_causal_lm, models.new_step_model):
        load(folder)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_a_language_models_head_is_not_left_over_in_a_new_step_model(
    tmp_path: Path, architecture: str
) -> None:
    step = models.new_step_model(tiny.save_base(tmp_path / "base", architecture))
    models.save_model(step, tiny.tiny_tokenizer(), tmp_path / "orm", "")
    again = models.load_step_model(tmp_path / "orm")
    assert all(
        torch.equal(a, b) for a, b in zip(step.parameters(), again.parameters(), strict=True)
    )
    models.new_step_model(tmp_path / "orm")


def test_a_tied_step_classifier_is_no_language_model(tmp_path: Path) -> None:
    step = models.new_step_model(tiny.save_base(tmp_path / "base", "llama"))
    models.save_model(step, tiny.tiny_tokenizer(), tmp_path / "orm", "")
    with pytest.raises(
        ModelError,
        match=r"is no causal language model, or not only that: "
        r"its files hold more weights: score\.bias and 1 more",
    ):
        models.load_causal_lm(tmp_path / "orm")


@pytest.fixture
def made(base: Path, tmp_path: Path) -> Path:
    models.save_model(
        models.load_causal_lm(base), models.load_tokenizer(base), tmp_path / "made", "# card\n"
    )
    return tmp_path / "made"


def test_a_flipped_byte_is_noticed(made: Path) -> None:
    names = sorted(json.loads((made / DIGESTS).read_text()))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(
        names
    )
    for name in names:
        whole = (made / name).read_bytes()
        (made / name).write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        for load in LOADERS:
            with pytest.raises(ModelError, match=rf"{name} has changed since it was written"):
                load(made)
        (made / name).write_bytes(whole)
    for load in LOADERS:
        load(made)
    (made / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        models.load_tokenizer(made)


def test_a_card_may_be_edited_and_notes_added_but_nothing_that_is_loaded(made: Path) -> None:
    (made / "README.md").write_text("mine")
    (made / "notes.txt").write_text("mine")
    (made / "results.json").write_text("{}")
    for load in LOADERS:
        load(made)
    for name in (
        "adapter_config.json",
        "added_tokens.json",
        "vocab.txt",
        "model.safetensors.index.json",
        "pytorch_model.bin",
    ):
        (made / name).write_text("{}")
        for load in LOADERS:
            with pytest.raises(
                ModelError, match=r"which glore did not write there|it holds an adapter"
            ):
                load(made)
        (made / name).unlink()


def test_a_model_of_the_hub_is_checked_like_a_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    place = tmp_path / "models--org--name"
    shutil.copytree(base, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = model_folder.open_folder("org/name", "causal language model")
    assert (found.name, found.folder, found.revision) == (
        "org/name",
        place / "snapshots" / commit,
        commit,
    )
    with_code(place / "snapshots" / commit, tmp_path / "marker")
    edit(place / "snapshots" / commit / "config.json", num_hidden_layers=10**9)
    for load in LOADERS:
        with pytest.raises(
            ModelError, match="num_hidden_layers to 1000000000, and the limit is 10,000"
        ):
            load("org/name")
    with pytest.raises(
        ModelError,
        match="can't load a tokenizer from 'org/other': it is no local folder, and can't be "
        "fetched",
    ):
        models.load_tokenizer("org/other")
    assert not (tmp_path / "marker").exists()
