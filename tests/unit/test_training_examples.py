from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glore.training.batches import WINDOW, pad_rows, plan_batches
from glore.training.examples import (
    IGNORED,
    LMExample,
    Row,
    StepExample,
    document_rows,
    lm_rows,
    step_rows,
)
from support import tiny_training as tiny

TOKENIZER = tiny.tiny_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_only_target_tokens_and_their_end_are_scored() -> None:
    (row,), n_dropped = lm_rows(TOKENIZER, [LMExample(("Ana : ",), ("12\n", "#### 15\n"))], 96)
    prompt, target = ids("Ana : "), [*ids("12\n"), *ids("#### 15\n"), TOKENIZER.eos_token_id]
    assert n_dropped == 0
    assert row.ids.tolist() == prompt + target
    # The logits at position t predict token t + 1, so scoring starts at the prompt's last token.
    assert row.targets.tolist() == [IGNORED] * (len(prompt) - 1) + target + [IGNORED]


def test_without_a_prompt_everything_is_scored() -> None:
    (row,), _ = lm_rows(TOKENIZER, [LMExample((), ("12\n",))], 96)
    assert row.targets.tolist() == [*row.ids[1:].tolist(), IGNORED]


def test_of_a_document_only_the_learnt_pieces_and_the_end_are_scored() -> None:
    document = (
        ("Ana : ", False),
        ("12\n", True),
        ("7 + 7 =", False),
        (" 14\n", True),
        ("Tom", False),
    )
    (row,), n_dropped = document_rows(TOKENIZER, [document], 96)
    tokens = [(token, learnt) for text, learnt in document for token in ids(text)] + [
        (TOKENIZER.eos_token_id, True)
    ]
    assert n_dropped == 0
    assert row.ids.tolist() == [token for token, _ in tokens]
    assert row.targets.tolist() == [
        token if learnt else IGNORED for token, learnt in tokens[1:]
    ] + [IGNORED]


def test_documents_keep_their_order_and_long_ones_are_counted() -> None:
    documents = [((f"{i}\n", i % 2 == 0),) for i in range(20)]
    rows, n_dropped = document_rows(
        TOKENIZER, [*documents[:10], (("Ana " * 200, True),), *documents[10:]], 96
    )
    assert n_dropped == 1
    assert [TOKENIZER.decode(row.ids, skip_special_tokens=True) for row in rows] == [
        f"{i}\n" for i in range(20)
    ]
    learnt = [int((row.targets != IGNORED).sum()) for row in rows]
    assert learnt == [len(ids(f"{i}\n")) if i % 2 == 0 else 1 for i in range(20)], (
        "the end alone where nothing is learnt"
    )


def test_a_step_is_scored_at_its_last_token_if_it_is_kept() -> None:
    example = StepExample(
        ("Ana",), ("12\n", "7 + 7 = 14\n", "#### 15\n"), (True, True, False), (True, False, True)
    )
    (row,), _ = step_rows(TOKENIZER, [example], 96)
    assert row.ids.tolist() == ids("Ana") + ids("12\n") + ids("7 + 7 = 14\n") + ids("#### 15\n")
    ends = np.flatnonzero(row.targets != IGNORED).tolist()
    assert ends == [len(ids("Ana") + ids("12\n")) - 1, len(row.ids) - 1]
    assert row.targets[ends].tolist() == [1, 0]
    assert all(row.ids[end] == ids("\n")[0] for end in ends)


def test_a_soft_label_is_a_target_of_its_own() -> None:
    def targets(labels: tuple[float, ...], kept: tuple[bool, ...]) -> np.ndarray:
        example = StepExample(("Ana",), ("12\n", "7 + 7 = 14\n"), labels, kept)
        return step_rows(TOKENIZER, [example], 96)[0][0].targets

    soft = targets((0.3, True), (True, True))
    assert soft.dtype == np.float32
    assert soft[soft != IGNORED].tolist() == [np.float32(0.3), 1]
    # Without a soft label that is learned, rows have the bytes of hard labels.
    hard = targets((0.0, 1.0), (True, True))
    assert hard.dtype == np.int32
    assert hard.tobytes() == targets((False, True), (True, True)).tobytes()
    assert targets((0.3, True), (False, True)).dtype == np.int32


def test_what_is_too_long_or_has_no_target_is_counted() -> None:
    rows, n_dropped = lm_rows(
        TOKENIZER, [LMExample(("Ana " * 200,), ("12\n",)), LMExample(("Ana",), ("12\n",))], 96
    )
    assert (len(rows), n_dropped) == (1, 1)
    rows, n_dropped = step_rows(
        TOKENIZER, [StepExample(("Ana",), ("12\n",), (True,), (False,))], 96
    )
    assert (len(rows), n_dropped) == (0, 1)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=90),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_every_epoch_holds_every_row_once(
    lengths: list[int], batch_size: int, epochs: int, seed: int
) -> None:
    plan = plan_batches(lengths, batch_size, epochs, 0, seed)
    per_epoch = len(plan) // epochs
    assert len(plan) == epochs * -(-len(lengths) // batch_size)
    for epoch in range(epochs):
        rows = [i for batch in plan[epoch * per_epoch : (epoch + 1) * per_epoch] for i in batch]
        assert sorted(rows) == list(range(len(lengths)))
    assert max(map(len, plan)) <= batch_size
    assert plan == plan_batches(lengths, batch_size, epochs, 0, seed)


def test_the_seed_shuffles_and_the_length_groups() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 640).tolist()
    plan = plan_batches(lengths, 16, 1, 0, seed=1)
    assert plan != plan_batches(lengths, 16, 1, 0, seed=2)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    assert padded < 1.1 * sum(lengths)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=700), st.integers(1, 7), st.integers(0, 99)
)
def test_in_order_no_row_leaves_its_window(lengths: list[int], batch_size: int, seed: int) -> None:
    plan = plan_batches(lengths, batch_size, 1, 0, seed, in_order=True)
    rows = [i for batch in plan for i in batch]
    assert sorted(rows) == list(range(len(lengths)))
    size = WINDOW * batch_size
    assert [i // size for i in rows] == sorted(i // size for i in rows), "windows follow each other"
    assert plan == plan_batches(lengths, batch_size, 1, 0, seed, in_order=True)


def test_in_order_lengths_are_still_grouped_and_batches_of_a_window_shuffled() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 640).tolist()
    plan = plan_batches(lengths, 16, 1, 0, seed=1, in_order=True)
    assert sum(len(batch) * max(lengths[i] for i in batch) for batch in plan) < 1.1 * sum(lengths)
    assert plan != plan_batches(lengths, 16, 1, 0, seed=2, in_order=True)
    assert sorted(plan) == sorted(plan_batches(lengths, 16, 1, 0, seed=2, in_order=True))


def test_a_fraction_of_an_epoch_and_a_number_of_batches() -> None:
    assert len(plan_batches([5] * 40, 4, 0.25, 0, 0)) == 3
    assert len(plan_batches([5] * 40, 4, 1, 23, 0)) == 23


def test_padding_stands_on_the_right_and_is_not_scored() -> None:
    rows = [
        Row(np.array([5, 6, 7], np.int32), np.array([6, 7, IGNORED], np.int32)),
        Row(np.arange(1, 10, dtype=np.int32), np.arange(1, 10, dtype=np.int32)),
    ]
    ids_BT, targets_BT = pad_rows(rows, pad_id=0)
    assert ids_BT.shape == targets_BT.shape == (2, 16)
    assert ids_BT[0].tolist() == [5, 6, 7] + [0] * 13
    assert targets_BT[0].tolist() == [6, 7] + [IGNORED] * 14
