"""`stories`: the built-in task. Multi-step arithmetic stories about related quantities, with an
oracle for every step.

A story is a small graph: people are nodes with a quantity, and facts state or relate quantities:
"Jan had 4 pens, then used 2"; "Ben has as many pens as Ana and 3 more" (or the reverse); "twice as
many"; "together they have 31". An unknown number must be *found*: "Eva has A 5, B 8 or C 11 pens.
If Eva sold as many as Jan has, that would make 3". That is harder than to check a number. (A recipe
need not offer numbers to choose from.) Some people and sentences are irrelevant, sentences can be
shuffled, and redundant facts give more than one derivation of a quantity. Everything follows from
`stable_seed(seed, split, index)`, so stories are unlimited and the same on every machine.

A step is written `Ben: Ana 12 + 3 = 15` or `Eva: ? - Jan 2 = 3`. A number that was found is checked
at once: `Check: Eva A 5 - 2 = 3, 3 = 3` (number A of those offered). The oracle parses all lines of
that form: a name (or `Ana and Tom`, `Total`, `Difference`, `Check`), then equations. A step is true
if every equation holds, every number after a name is that person's, `A` is the letter of that
number, and the last equation gives the true value of what the step names (or holds for the unknown
`?`), in any derivation and order. Expressions are parsed by a small bounded parser; nothing is
evaluated as code.
"""

from __future__ import annotations

from glore.tasks.stories.task import Stories

__all__ = ["Stories"]
