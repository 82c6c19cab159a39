"""Per-length balancing of step labels as a mask over steps (method 3.3).

For each prefix length i the larger class is subsampled to the size of the smaller one over the
whole training set; or, which is ours, among the drafts of each question. The choice is keyed by
(question, draft, step), so it depends neither on the order of the drafts nor on their number of
rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from glore.seeds import stable_seed

__all__ = ["balance_mask"]


def balance_mask(
    labels: Mapping[tuple[str, str], Sequence[bool]], seed: int, *, within_question: bool = False
) -> dict[tuple[str, str], tuple[bool, ...]]:
    """(question id, draft id) → L labels, to the same keys → L flags: does the step stay in
    training? `within_question`: balance each question's drafts by themselves.
    """
    classes: dict[tuple[str, int, bool], list[tuple[int, tuple[str, str]]]] = defaultdict(list)
    for key, steps in labels.items():
        group = key[0] if within_question else ""
        for i, label in enumerate(steps):
            classes[group, i, label].append((stable_seed(seed, "balance", *key, i), key))
    kept: set[tuple[tuple[str, str], int]] = set()
    for (group, i, label), members in classes.items():
        n = min(len(members), len(classes.get((group, i, not label), ())))
        kept.update((key, i) for _, key in sorted(members)[:n])
    return {
        key: tuple((key, i) in kept for i in range(len(steps))) for key, steps in labels.items()
    }
