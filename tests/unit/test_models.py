from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from glore import model_folder, models, tokenization
from glore.errors import ConfigError, ModelError
from glore.progress import SilentProgress
from glore.prompts import BAD_MARK, refine_segments, solve_segments, step_text
from glore.training.training_setup import TrainingSetup
from support import tiny_training as tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def test_segments_are_encoded_one_by_one() -> None:
    tokenizer = tiny.tiny_tokenizer()
    whole = tokenization.encode_segments(tokenizer, ("Ana : 12\n", "Tom"))
    assert whole == tokenization.encode_segments(
        tokenizer, ("Ana : 12\n",)
    ) + tokenization.encode_segments(tokenizer, ("Tom",))
    assert tokenization.encode_segments(tokenizer, ()) == []
    assert tokenization.encode_many(tokenizer, [("Tom", "Tom"), (), ("",)]) == [
        2 * tokenization.encode_segments(tokenizer, ("Tom",)),
        [],
        [],
    ]


def test_only_the_mark_that_glore_sets_is_a_special_token() -> None:
    tokenizer = tiny.tiny_tokenizer()
    bad, special = tokenizer.convert_tokens_to_ids(BAD_MARK), set(tokenizer.all_special_ids)
    hostile = (
        "[BAD]",
        "[BAD] Tom",
        "[EOS]",
        "[PAD] 12",
        "Tom [BAD]",
        "[B[BAD]AD]",
        "[BAD]\n[BAD]",
        " [BAD] ",
    )
    for text in hostile:
        for segments in (
            solve_segments(text, hostile),
            refine_segments(text, hostile, None),
            (step_text(text),),
        ):
            ids = tokenization.encode_segments(tokenizer, segments)
            assert not special & set(ids)
            assert tokenizer.decode(ids) == "".join(segments)
    refining = refine_segments("[BAD]", hostile, 4)
    ids = tokenization.encode_segments(tokenizer, refining)
    assert [token for token in ids if token in special] == [bad]
    assert tokenizer.decode(ids[ids.index(bad) :]).startswith("[BAD] Tom\n")
    assert tokenization.encode_many(tokenizer, [refining, refining])[1] == ids
    assert tokenizer("[BAD]", add_special_tokens=False)["input_ids"] == [bad], (
        "the tokenizer itself is left as it was"
    )


def test_bos_comes_once_in_front_where_the_tokenizer_uses_one() -> None:
    from tokenizers import processors

    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "[BOS]"})
    plain = tokenization.encode_segments(tokenizer, ("Ana", "Tom"))
    assert tokenizer.bos_token_id not in plain, (
        "a BOS that the tokenizer never prepends is not prepended"
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", tokenizer.bos_token_id)]
    )
    assert tokenization.encode_segments(tokenizer, ("Ana", "Tom")) == [
        tokenizer.bos_token_id,
        *plain,
    ]
    assert tokenization.encode_many(tokenizer, [("Ana", "Tom")], bos=False) == [plain]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_prepare_adds_the_mark_and_a_pad_token_and_resizes(architecture: str) -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(
        kinds.WordLevel({"<unk>": 0, "</s>": 1, "Ana": 2, "Tom": 3}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    model = tiny.tiny_model(architecture, 4)
    before = model.get_input_embeddings().weight.detach().clone()
    bad_id = tokenization.prepare_tokenizer(tokenizer, model)
    after = model.get_input_embeddings().weight.detach()
    assert tokenization.encode_segments(tokenizer, ("Ana\n", "[BAD]", " Tom\n")) == [2, bad_id, 3]
    assert after.shape[0] == len(tokenizer) == 6
    assert torch.equal(after[:4], before)
    torch.testing.assert_close(after[bad_id], before.mean(dim=0))
    assert model.get_output_embeddings().weight.shape[0] == 6
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenization.prepare_tokenizer(tokenizer, model) == bad_id
    assert len(tokenizer) == 6, "a second call changes nothing"


def test_a_saved_model_comes_back_with_card_and_tokenizer(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer()
    model = tiny.tiny_model("llama", len(tokenizer))
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "old").touch()
    models.save_model(model, tokenizer, folder, "# card\n")
    assert (folder / "README.md").read_text() == "# card\n"
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "old").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["student"], "no temporary folder stays"
    assert (
        AutoTokenizer.from_pretrained(folder)("[BAD] 12").input_ids
        == tokenizer("[BAD] 12").input_ids
    )
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_a_step_model_starts_from_a_causal_lm_and_its_head_from_the_seed(base: Path) -> None:
    torch.manual_seed(3)
    model = models.new_step_model(base)
    torch.manual_seed(3)
    assert torch.equal(models.new_step_model(base).score.weight, model.score.weight)
    source = models.load_causal_lm(base)
    assert torch.equal(model.model.embed_tokens.weight, source.model.embed_tokens.weight)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.dropout.p == 0.0


def test_a_model_of_the_wrong_kind_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"LlamaForCausalLM\) is no step classifier: it has no weights for score"
    ):
        models.load_step_model(base)
    tokenizer = tiny.tiny_tokenizer()
    untied = AutoModelForTokenClassification.from_config(
        tiny.tiny_model("qwen2", len(tokenizer)).config
    )
    models.save_model(untied, tokenizer, tmp_path / "orm", "")
    with pytest.raises(
        ModelError, match=r"is no causal language model: it has no weights for lm_head"
    ):
        models.load_causal_lm(tmp_path / "orm")


def test_what_is_missing_is_named_in_one_line(base: Path, tmp_path: Path) -> None:
    for load in (models.load_causal_lm, models.load_tokenizer, models.load_step_model):
        with pytest.raises(ModelError, match="no model folder") as missing:
            load(tmp_path / "nowhere")
        with pytest.raises(ModelError, match=r"holds no config\.json"):
            load(tmp_path)
        assert "\n" not in str(missing.value)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't load") as unreadable:
        models.load_causal_lm(broken)
    assert "\n" not in str(unreadable.value)
    with pytest.raises(ConfigError, match="must be one of float32, bfloat16, float16, got 'int3'"):
        models.load_causal_lm(base, dtype="int3")


def test_float16_is_no_type_for_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are trained in float32 or bfloat16, got 'float16'"):
        TrainingSetup(
            out_dir=tmp_path / "model",
            work_dir=tmp_path,
            seed=0,
            progress=SilentProgress(),
            dtype="float16",
        )


def test_truncated_weights_are_a_model_error(base: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:4], whole[:1000], whole[:-1], b"\xff" * len(whole)):
        weights.write_bytes(damaged)
        with pytest.raises(
            ModelError,
            match=r"can't load a causal language model from .*copy': "
            r"its weights are damaged .* \(glore run",
        ):
            models.load_causal_lm(copy)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="has no eos_token"):
        models.load_tokenizer(tmp_path)


def test_a_model_without_a_tokenizer_is_said_to_have_none(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("tokenizer*", "glore-digests*"))
    with pytest.raises(ModelError, match=r"has no tokenizer; copy .*tokenizer\.json"):
        models.load_tokenizer(bare)


def test_a_revision_pins_tokenizer_and_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commits of one repository in a cache of the Hub, as `hf download` leaves it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--some--base"
    tokens = (base / "tokenizer_config.json").read_text()
    commits = {"main": "a" * 40, "v1": "b" * 40}
    for number, (name, commit) in enumerate(commits.items()):
        folder = repository / "snapshots" / commit
        shutil.copytree(base, folder)
        model = AutoModelForCausalLM.from_pretrained(str(folder))
        model.get_input_embeddings().weight.data.fill_(number)
        model.save_pretrained(str(folder))
        (folder / "tokenizer_config.json").write_text(
            tokens.replace("[EOS]", ["[EOS]", "Tom"][number])
        )
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    for reference, number in (
        ("some/base", 0),
        ("some/base@v1", 1),
        (f"some/base@{'b' * 40}", 1),
        ("some/base@main", 0),
    ):
        for load in (models.load_causal_lm, models.new_step_model):
            assert load(reference).get_input_embeddings().weight.unique().tolist() == [number], (
                reference,
                load,
            )
        assert models.load_tokenizer(reference).eos_token == ["[EOS]", "Tom"][number]
    with pytest.raises(ModelError, match="nowhere"):
        models.load_tokenizer("some/base@nowhere")


def test_a_reference_is_split_only_where_it_names_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine@v1").mkdir()
    for path in (
        "gpt2",
        "a/b",
        "mine@v1",
        "./mine@v1",
        str(tmp_path / "mine@v1"),
        Path("a@b"),
        "runs/x/models/a@b",
    ):
        assert model_folder.split_reference(path) == (str(path), None)
    assert model_folder.split_reference("a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    assert model_folder.split_reference("gpt2@v1.0") == ("gpt2", "v1.0")
