"""`stories`: the built-in task. Multi-step arithmetic stories about related quantities, and an
oracle for every step.

A story is a small graph: people are nodes with a quantity, facts say or relate them: "Jan had 4
pens, then used 2"; "Ben has as many pens as Ana and 3 more" (or the other way round); "twice as
many"; "together they have 31". Somebody's number may have to be *found*: "Eva has A 5, B 8 or C 11
pens. If Eva sold as many as Jan has, that would make 3", which is harder than checking what was
found (a recipe need not offer numbers to choose from). Some people and sentences do not matter,
sentences can be shuffled, and redundant facts give more than one way to a quantity. Everything
follows from `stable_seed(seed, split, index)`: unlimited and the same everywhere.

A step is written `Ben: Ana 12 + 3 = 15` or `Eva: ? - Jan 2 = 3`; a number found is tried at once:
`Check: Eva A 5 - 2 = 3, 3 = 3` (number A of those offered). The oracle reads any line of that kind:
a name (or `Ana and Tom`, `Total`, `Difference`, `Check`), then equations. The step is true when
every equation holds, a number behind a name is that person's, `A` says which one offered it is, and
the last equation comes to the true value of what the step names (or holds for the `?` that is to be
found), whatever the way or the order. Expressions are parsed by a small reader of our own, bounded
in length; nothing is evaluated as code.
"""

from __future__ import annotations

from glore.tasks.stories.task import Stories

__all__ = ["Stories"]
