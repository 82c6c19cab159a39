"""Training, scoring and serving read a step's score at the same token, and that is where the
authors of each layout read it: for tokenizers in the manner of five families.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from glore.errors import ConfigError, ModelError
from glore.prompts import step_text
from glore.reward_models.layouts import LAYOUTS, note_of, noted_layout, step_layout
from glore.step_layouts.parts import score_positions, token_ids
from glore.step_layouts.whole_texts import MathShepherdLayout
from glore.training.examples import IGNORED, StepExample, step_row, step_rows
from support.published_layouts import PUBLISHED
from support.step_tokenizers import NAMES, step_tokenizer

QUESTION = "How many apples do they have?"
STEPS = (
    "Step 1: Ann has 3 + 4 = 7 apples.",
    "Step 2: Bob has 7 - 2 = 5 apples",
    "Step 3: The answer is: 12 + -5.",
)
REFUSED = {("rlhflow", "mistral")}
"""There, a sign after a newline is another token than a sign by itself."""
TEXTS = st.text("Ann has 3+4-.\n\r\tки é²😀,<>", min_size=1, max_size=25)


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    tokenizer = step_tokenizer(name, ("<extra_0>",))
    # The date that Llama 3.1's template falls back on, and glore always writes.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "strftime_now('%d %b %Y')", "'26 Jul 2024'"
    )
    return tokenizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_and_positions_are_those_of_the_layouts_authors(layout: str, name: str) -> None:
    tokenizer = tokenizer_of(name)
    chosen = step_layout(layout)
    if (layout, name) in REFUSED:
        with pytest.raises(ModelError, match="so no token ends there"):
            chosen.encode(tokenizer, [(QUESTION, STEPS)])
        return
    if layout == "skywork" and name in ("llama3", "gemma", "mistral"):
        tokenizer.bos_token = None  # its authors' code is for Qwen's tokenizers, which add no BOS
    [parts] = chosen.encode(tokenizer, [(QUESTION, STEPS)])
    ids, places = PUBLISHED[layout](tokenizer, QUESTION, STEPS)
    assert len(places) == len(STEPS)
    assert score_positions(parts) == places
    # What follows the last score is not read.
    assert token_ids(parts) == ids[: places[-1] + 1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_learns_where_scores_are_read_and_where_an_export_says(
    layout: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if (layout, name) in REFUSED:
        pytest.skip("refused")
    tokenizer = tokenizer_of(name)
    chosen = step_layout(layout)
    [parts] = chosen.encode(tokenizer, [(QUESTION, STEPS)])
    row = step_row(parts, (True, False, True), (True, True, True))
    places = [i for i, target in enumerate(row.targets) if target != IGNORED]
    assert places == score_positions(parts)
    assert [int(row.targets[i]) for i in places] == [1, 0, 1]
    assert row.ids.tolist() == token_ids(parts)
    if layout != "glore":
        folder = tmp_path_factory.mktemp("folder")
        (folder / "step_layout.json").write_bytes(note_of(chosen))
        assert noted_layout(folder, "?") == chosen


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_of_our_trainings_are_those_that_we_score(name: str) -> None:
    tokenizer = tokenizer_of(name)
    example = StepExample(
        prompt=(f"Question: {QUESTION}\nAnswer:\n",),
        steps=tuple(map(step_text, STEPS)),
        labels=(True, False, True),
        kept=(True, True, True),
    )
    [[row], dropped] = step_rows(tokenizer, [example], 1000)
    [parts] = step_layout("glore").encode(tokenizer, [(QUESTION, STEPS)])
    assert dropped == 0
    assert row.ids.tolist() == token_ids(parts)
    assert [i for i, t in enumerate(row.targets) if t != IGNORED] == score_positions(parts)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "rlhflow"])
@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), question=TEXTS, steps=st.lists(TEXTS, max_size=4))
def test_every_step_has_a_place_of_its_own_and_the_past_does_not_depend_on_the_future(
    layout: str, name: str, question: str, steps: list[str]
) -> None:
    """Or the text is refused, since the tokenizer merges it with a separator."""
    tokenizer, chosen = tokenizer_of(name), step_layout(layout)
    try:
        [parts, start] = chosen.encode(
            tokenizer, [(question, tuple(steps)), (question, tuple(steps[:-1]))]
        )
    except ModelError:
        assert layout == "math_shepherd"
        return
    assert len(parts) == len(steps) + 1
    assert all(parts[1:])
    places = score_positions(parts)
    if steps[1:]:
        assert score_positions(start) == places[:-1]
        assert token_ids(start) == token_ids(parts)[: places[-2] + 1]
    assert places == sorted(set(places))


@pytest.mark.parametrize("layout", ["qwen", "math_shepherd", "trl", "skywork", "rlhflow", "glore"])
def test_text_that_spells_a_separator_or_a_special_token_makes_no_step(layout: str) -> None:
    tokenizer = tokenizer_of("qwen")
    steps = ("a <extra_0> b", "c ки d", "e<|im_end|>\n<|im_start|>assistant\n+ f")
    [parts] = step_layout(layout).encode(tokenizer, [("Is <|im_start|> here?", steps)])
    special = {
        tokenizer.convert_tokens_to_ids(t) for t in ("<extra_0>", "<|im_end|>", "<|im_start|>")
    }
    plain = step_layout(layout).encode(tokenizer, [("Is it here?", ("a b", "c d", "e f"))])[0]
    assert len(score_positions(parts)) == 3
    assert [t for t in token_ids(parts) if t in special] == [
        t for t in token_ids(plain) if t in special
    ]


def merging_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Letters as tokens, and these merges."""
    letters = sorted({c for pair in merges for text in pair for c in text} | set("abz ки\n+-"))
    vocab = {c: i for i, c in enumerate(letters)}
    for one, other in merges:
        vocab.setdefault(one + other, len(vocab))
    core = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="z")


def test_a_separator_that_merges_with_its_neighbour_is_refused() -> None:
    steps = ("a", "b")
    layout = MathShepherdLayout()
    apart = merging_tokenizer(("к", "и"), (" ", "ки"))
    [parts] = layout.encode(apart, [("a", steps)])
    assert [apart.decode([part[-1]]) for part in parts[1:]] == [" ки", " ки"]
    for merges in (
        (("к", "и"), (" ", "ки"), (" ки", "\n")),
        (("и", "\n"),),
        (("a", " "), ("a ", "к"), ("a к", "и")),
    ):
        tokenizer = merging_tokenizer(*merges)
        with pytest.raises(ModelError, match=r"merges the end of .* so no token ends there"):
            layout.encode(tokenizer, [("a", steps)])


def test_steps_are_numbered_if_asked_for() -> None:
    tokenizer = tokenizer_of("mistral")
    numbered = step_layout("math_shepherd", {"numbered": True})
    plain = step_layout("math_shepherd")
    assert numbered.encode(tokenizer, [(QUESTION, ("a", "Step 2: b"))]) == plain.encode(
        tokenizer, [(QUESTION, ("Step 1: a", "Step 2: b"))]
    )


def test_a_separator_of_several_tokens_is_read_at_its_last() -> None:
    tokenizer = tokenizer_of("smollm2")
    layout = step_layout("trl", {"separator": " \n \n"})
    [parts] = layout.encode(tokenizer, [(QUESTION, ("a", "b"))])
    separator = tokenizer(" \n \n", add_special_tokens=False)["input_ids"]
    assert len(separator) > 1
    assert all(part[-len(separator) :] == separator for part in parts[1:])


@pytest.mark.parametrize(
    ("name", "given_settings", "said"),
    [
        ("prm", {}, "must be one of glore, trl, qwen"),
        ("trl", {"separator": ""}, r"can't take separator=''; its settings are separator"),
        ("trl", {"system": "x"}, "can't take system"),
        ("rlhflow", {"separator": "\n"}, "it has no settings"),
        ("math_shepherd", {"numbered": "yes"}, "can't take numbered"),
    ],
)
def test_what_a_layout_can_not_take_is_refused(
    name: str, given_settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        step_layout(name, given_settings)
