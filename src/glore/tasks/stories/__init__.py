"""`stories`: the built-in task. Multi-step arithmetic stories about related quantities, and an oracle for every step.

A story is a small graph: people are nodes with a hidden quantity, facts relate them ("Ana has 7 more pens than Tom", either way
round; "twice as many"; "Ana and Tom have 31 pens together"; "as many as Tom and Bo together"), one or two quantities are given. The
sentences are shuffled, some people and sentences do not matter, and redundant facts give more than one way to a quantity. Everything
follows from `stable_seed(seed, split, index)`: unlimited and the same everywhere.

A step is written `Ana: Tom + 7 = 12 + 7 = 19`. The oracle reads any line of that kind: a name (or `Ana and Tom`, `Difference`),
then expressions joined by `=`. The step is true when all expressions have the same value and it is the named quantity's true value,
whatever the way or the order. Expressions are parsed by a small reader of our own, bounded in length; nothing is evaluated as code.
"""

from __future__ import annotations

from glore.tasks.stories.task import Stories

__all__ = ["Stories"]
