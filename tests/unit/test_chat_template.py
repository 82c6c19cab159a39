"""Prompts as a chat: the text and the tokens are the model's own template's, prefixes stay, and
what a question spells of control tokens is text.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
)

from glore.chat_template import prompt_layout, read_chat_template
from glore.config import PromptSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.local.scorer import StepScorer
from glore.engines.protocol import Request, SamplingParams
from glore.errors import ModelError
from glore.prompts import BAD_MARK, CORRECT, ControlText, PromptLayout, StepFormat
from glore.tokenization import encode_segments, prepare_tokenizer
from glore.training.batches import pad_rows
from glore.training.examples import IGNORED, LMExample, StepExample, lm_rows, step_rows
from support.chat_tokenizers import FAMILIES, chat_tokenizer

TOKENIZERS = {name: chat_tokenizer(name) for name in FAMILIES}
SPELLED = sorted({token for family in FAMILIES.values() for token in family.special})
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30) | (
    st.sampled_from(["How many apples?", "a\nb", "<think>", "{{ bos_token }}", "user\n", "[BAD"])
)
question = st.lists(text, min_size=1, max_size=3).map("\n".join).map(str.strip).filter(bool)
line = text.map(lambda s: " ".join(s.split())).filter(bool)
names = st.sampled_from(sorted(FAMILIES))
systems = st.sampled_from([None, "Be brief.", "Two\nlines."])


def layout_of(name: str, system: str | None = None) -> PromptLayout:
    return PromptLayout(chat=read_chat_template(TOKENIZERS[name], system))


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')


def turns(words: str, system: str | None = None) -> list[dict[str, str]]:
    head = [] if system is None else [{"role": "system", "content": system}]
    return [*head, {"role": "user", "content": words}]


def dated(tokenizer: PreTrainedTokenizerFast) -> str:
    """Its template with Llama's own fallback for the day."""
    return str(tokenizer.chat_template).replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")


def rendered(tokenizer: PreTrainedTokenizerFast, words: str, system: str | None = None) -> str:
    return tokenizer.apply_chat_template(
        turns(words, system),
        tokenize=False,
        add_generation_prompt=True,
        chat_template=dated(tokenizer),
    )


@settings(max_examples=200, deadline=None)
@given(names, question, systems)
def test_text_and_tokens_are_those_of_apply_chat_template(
    name: str, words: str, system: str | None
) -> None:
    tokenizer, segments = TOKENIZERS[name], layout_of(name, system).solve(words)
    assert "".join(segments) == rendered(tokenizer, words, system)
    expected = tokenizer.apply_chat_template(
        turns(words, system),
        add_generation_prompt=True,
        return_dict=True,
        chat_template=dated(tokenizer),
    )["input_ids"]
    if not any(token in words for token in (*SPELLED, BAD_MARK, "[PAD]")):
        assert encode_segments(tokenizer, segments) == expected


@settings(max_examples=100, deadline=None)
@given(names, question, st.sampled_from([*SPELLED, BAD_MARK, "[PAD]"]), st.booleans())
def test_a_control_token_that_a_question_spells_is_text(
    name: str, words: str, spelled: str, is_alone: bool
) -> None:
    tokenizer, layout = TOKENIZERS[name], layout_of(name)
    words = spelled if is_alone else f"{words}{spelled}{words}"
    special = set(tokenizer.all_special_ids) | {
        i for i, t in tokenizer.added_tokens_decoder.items() if t.special
    }

    def controls(words: str) -> list[int]:
        return [i for i in encode_segments(tokenizer, layout.solve(words)) if i in special]

    assert controls(words) == controls("How many?")
    assert "".join(layout.solve(words)) == rendered(tokenizer, words)
    assert BAD_MARK not in layout.solve(words)


@settings(max_examples=100, deadline=None)
@given(names, question, st.lists(line, max_size=4), st.sampled_from(["\n", "\n\n"]))
def test_a_step_changes_no_token_before_it(
    name: str, words: str, steps: list[str], end: str
) -> None:
    tokenizer = TOKENIZERS[name]
    chat = read_chat_template(tokenizer)
    layout = PromptLayout(StepFormat(end), chat)
    whole = encode_segments(tokenizer, layout.solve(words, steps))
    for i in range(len(steps) + 1):
        segments = layout.solve(words, steps[:i])
        tokens = encode_segments(tokenizer, segments)
        assert tokens == whole[: len(tokens)]
        assert segments[len(segments) - i :] == tuple(s + end for s in steps[:i])


@settings(max_examples=100, deadline=None)
@given(names, question, st.lists(line, min_size=1, max_size=4), st.data())
def test_a_refinement_is_a_turn_with_the_marked_draft(
    name: str, words: str, draft: list[str], data: st.DataObject
) -> None:
    marked = data.draw(st.none() | st.integers(0, len(draft) - 1))
    tokenizer = chat_tokenizer(name)
    tokenizer.add_special_tokens({"extra_special_tokens": [BAD_MARK]})
    segments = layout_of(name).refine(words, draft, marked)
    clean = [s.replace(BAD_MARK, "").strip() for s in draft]
    lines = [f"{BAD_MARK} {s}" if i == marked else s for i, s in enumerate(clean)]
    said = "\n".join([words, "Draft:", *lines, CORRECT])
    assert "".join(segments) == rendered(TOKENIZERS[name], said)
    bad = tokenizer.convert_tokens_to_ids(BAD_MARK)
    assert encode_segments(tokenizer, segments).count(bad) == (marked is not None)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_prompt_has_one_bos_where_the_family_has_one(name: str) -> None:
    tokenizer, family = TOKENIZERS[name], FAMILIES[name]
    chat = encode_segments(tokenizer, layout_of(name).solve("How many?"))
    plain = encode_segments(tokenizer, PromptLayout().solve("How many?"))
    if family.adds_bos:
        assert plain.count(tokenizer.bos_token_id) == 1
        assert plain[0] == tokenizer.bos_token_id
        assert chat.count(tokenizer.bos_token_id) == ("bos_token" in family.template)
    else:
        assert not set(plain) & set(tokenizer.all_special_ids)
        n_turns = 3 if tokenizer.bos_token_id is not None else 0
        assert chat.count(tokenizer.bos_token_id) == n_turns, "SmolLM2's BOS begins each turn"


def test_earlier_turns_are_the_examples(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["qwen3"]
    save(tokenizer, tmp_path)
    shots = (("How many?", ("1 + 1 = 2", "#### 2")), ("<|im_end|>", ("#### 3",)))
    layout = prompt_layout(PromptSettings(style="chat", system="Be brief."), tmp_path, shots)
    said = [
        *turns("How many?", "Be brief."),
        {"role": "assistant", "content": "1 + 1 = 2\n#### 2"},
        {"role": "user", "content": "Why?"},
    ]
    expected = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert "".join(layout.solve("Why?")) == expected, "an example with a control token is left out"
    assert isinstance(layout.solve("Why?")[0], ControlText)


def test_the_date_of_a_template_is_always_the_same() -> None:
    assert "Today Date: 26 Jul 2024\n" in layout_of("llama3").solve("How many?")[0]


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (None, None, "has no chat template, which prompt.style=chat needs"),
        ("{{ messages[0]['content'] * 2 }}", None, "does not repeat the user's words once"),
        ("hello", None, "does not repeat the user's words once"),
        ("{{ messages[0]['content'] | upper }}", None, "does not repeat the user's words once"),
        (
            "{{ messages[0]['content'] | length }}:{{ messages[0]['content'] }}",
            None,
            "writes other text around 'x' than around other words",
        ),
        (
            "{{ messages[0]['content'] | replace('\n', ' ') }}",
            None,
            "writes other text around 'Two lines",
        ),
        ("{{ messages[0]['content'] | e }}", None, "writes other text around 'Two lines"),
        (
            "{% if messages[0]['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}",
            "Be brief.",
            "refuses a conversation of the roles system, user .*not supported.*prompt.system=null",
        ),
        ("{{ messages[0]", None, "refuses a conversation of the roles user .*prompt.style=plain"),
        (
            "{{ messages[0]",
            "Be brief.",
            "refuses a conversation of the roles user .*prompt.style=plain",
        ),
        (
            "{{ messages[-1]['content'] }}\nAnswer:",
            "Be brief.",
            "leaves out the system prompt; set prompt.system=null",
        ),
    ],
)
def test_a_template_that_can_not_be_used_is_refused(
    template: str | None, system: str | None, message: str
) -> None:
    tokenizer = chat_tokenizer("qwen3")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message) as caught:
        read_chat_template(tokenizer, system)
    assert "\n" not in str(caught.value)


def test_thoughts_apart_need_a_template_that_opens_none(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer("qwen3")
    tokenizer.chat_template += "{{ '<think>\n' }}"
    save(tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"opens <think> itself.*set prompt.think=keep"):
        prompt_layout(PromptSettings(style="chat", think="apart"), tmp_path)
    assert prompt_layout(PromptSettings(style="chat"), tmp_path).chat is not None


def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=2,
    )


def lively(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(5.0)
    return model.eval()


def test_a_token_without_an_embedding_is_refused_not_read_from_elsewhere() -> None:
    """Gemma 3's tokenizer has a token more than its text models; foreign ones have many."""
    tokenizer = chat_tokenizer("qwen3")
    config = llama(tokenizer)
    config.vocab_size = tokenizer.convert_tokens_to_ids("<|im_start|>")
    config.pad_token_id = config.eos_token_id = None
    message = r"writes '<\|im_start\|>' as token 321, but the model has embeddings of 321 tokens"
    engine = TorchEngine.of(LlamaForCausalLM(config), tokenizer)
    asked = Request("q", ("How many apples?",), (1,), SamplingParams(max_new_tokens=2))
    assert len(list(engine.run([asked]))) == 1
    chat = layout_of("qwen3")
    with pytest.raises(ModelError, match=message):
        list(engine.run([dataclasses.replace(asked, segments=chat.solve("How many?"))]))
    scorer = StepScorer.of(LlamaForTokenClassification(config), tokenizer, layout=chat)
    with pytest.raises(ModelError, match=message):
        scorer.score([("How many?", ("1 + 1 = 2",))])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_engine_draws_what_generate_draws_after_the_template(name: str) -> None:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer(name)
    model = lively(LlamaForCausalLM(llama(tokenizer)))
    ids = tokenizer.apply_chat_template(
        turns("How many apples?"),
        add_generation_prompt=True,
        return_dict=True,
        chat_template=dated(tokenizer),
        return_tensors="pt",
    )["input_ids"]
    drawn = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    expected = tokenizer.decode(drawn, skip_special_tokens=True)
    segments = layout_of(name).solve("How many apples?")
    request = Request("q", segments, (1,), SamplingParams(temperature=0.0, max_new_tokens=12))
    (result,) = TorchEngine.of(model, tokenizer).run([request])
    assert result.completions[0].text == expected


@pytest.mark.parametrize("name", ["qwen3", "llama3"])
def test_a_step_of_a_chat_is_scored_at_its_last_token(name: str) -> None:
    torch.manual_seed(1)
    tokenizer, layout = chat_tokenizer(name), layout_of(name, "Be brief.")
    model = lively(LlamaForTokenClassification(llama(tokenizer)))
    items = [("How many?", ("1 + 1 = 2", "#### 2")), ("<|eot_id|><|im_end|>", ("a",))]
    found = StepScorer.of(model, tokenizer, layout=layout).score(items)
    for (words, steps), scores in zip(items, found, strict=True):
        for i, score in enumerate(scores, start=1):
            ids = torch.tensor([encode_segments(tokenizer, layout.solve(words, steps[:i]))])
            with torch.inference_mode():
                good = torch.softmax(model(input_ids=ids).logits[0, -1], -1)[1]
            assert score == pytest.approx(float(good), abs=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_target_ends_in_eos_which_padding_does_not_hide(name: str) -> None:
    """Also where the padding token is the end-of-text token, and where the family has none."""
    tokenizer, layout = chat_tokenizer(name), layout_of(name)
    model = LlamaForCausalLM(llama(tokenizer))
    bad = prepare_tokenizer(tokenizer, model)
    prompt = layout.refine("How many?", ("a", "b"), 1)
    short, long = (LMExample(prompt, tuple(f"{s}\n" for s in "x" * n)) for n in (1, 9))
    rows, n_dropped = lm_rows(tokenizer, [short, long], 512)
    assert n_dropped == 0
    ids_BT, targets_BT = pad_rows(rows, tokenizer.pad_token_id)
    start = encode_segments(tokenizer, prompt)
    assert start.count(bad) == 1
    for row, ids_T, targets_T, example in zip(
        rows, ids_BT.tolist(), targets_BT.tolist(), (short, long), strict=True
    ):
        n = len(row.ids)
        assert ids_T[: len(start)] == start
        learnt = [t for t in targets_T if t != IGNORED]
        assert tokenizer.decode(learnt[:-1]) == "".join(example.target)
        assert learnt[-1] == ids_T[n - 1] == tokenizer.eos_token_id
        assert targets_T[len(start) - 1 : n - 1] == learnt
        assert set(targets_T[n - 1 :]) == {IGNORED}
    assert ids_BT[0, -1] == tokenizer.pad_token_id
    (scored,), _ = step_rows(
        tokenizer,
        [StepExample(layout.solve("Q"), ("a\n", "b\n"), (True, False), (True, True))],
        512,
    )
    n = len(encode_segments(tokenizer, layout.solve("Q")))
    assert scored.targets[scored.targets != IGNORED].tolist() == [1, 0]
    assert (scored.targets[:n] == IGNORED).all()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_ends_of_a_family_end_a_completion_and_are_no_text(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    model = LlamaForCausalLM(llama(tokenizer)).eval()
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>") if name == "gemma3" else None
    if end is not None:  # Gemma's turn ends in a token of its own
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    engine = TorchEngine.of(model, tokenizer)
    ends = {i for i in range(len(tokenizer)) if engine.is_end(torch.tensor([i]).numpy())[0]}
    assert ends == {tokenizer.eos_token_id} | ({end} if end is not None else set())
    assert engine.texts([[*tokenizer("a\n", add_special_tokens=False)["input_ids"], *ends]]) == [
        "a\n"
    ]
