"""PaddleNLP's process rewards: `src`, `tgt`, `responses`, `labels` (`+` and `-`).

`src` holds the user's turns and `tgt` the answers between them. The question is the last turn; what
came before it is kept for this layout alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from glore.formats.fields import FieldError, Fields, labels_of, others, text, texts
from glore.formats.joined import SIGNS
from glore.formats.labelled import Label, LabelledSolution
from glore.formats.layout import Layout, ReadOptions, WriteOptions

__all__ = ["PADDLENLP"]

WORDS: dict[str, Label] = {"+": True, "-": False}
OWN = ("src", "tgt", "responses", "labels")


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    asked, answered = _turns(fields, "src"), _turns(fields, "tgt")
    if len(asked) != len(answered) + 1:
        raise FieldError(
            "src", f"has {len(asked)} turns, and tgt {len(answered)}; it needs one more"
        )
    steps = texts(fields, "responses")
    history = {"src": list(asked[:-1]), "tgt": list(answered)} if answered else {}
    yield LabelledSolution(
        asked[-1],
        steps,
        labels_of(fields, "labels", len(steps), WORDS),
        layout=PADDLENLP.name,
        fields={**others(fields, *OWN), **history},
    )


def _turns(fields: Fields, name: str) -> tuple[str, ...]:
    if isinstance(fields.get(name), str):
        return (text(fields, name),)
    return () if fields.get(name) in ([], None) else texts(fields, name)


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    kept = solution.fields if solution.layout == PADDLENLP.name else {}
    return {
        "src": [*cast("list[str]", kept.get("src", [])), solution.question],
        "tgt": list(cast("list[str]", kept.get("tgt", []))),
        "responses": list(solution.steps),
        "labels": [SIGNS[bool(label)] for label in solution.labels or ()],
        **others(kept, "src", "tgt"),
    }


PADDLENLP = Layout(
    "paddlenlp",
    "PaddleNLP: src, tgt, responses, labels (+ and -)",
    lambda fields: "src" in fields and isinstance(fields.get("responses"), list),
    _read,
    _write,
)
