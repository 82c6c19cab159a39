"""YAML without surprises: values that YAML 1.1 would silently read as something else are refused,
with the line and the right spelling.

Python's YAML reader follows version 1.1, in which 010 is 8, 1:30 is 90 and `no` is false. Aliases
and merge keys (`<<`) are supported. Their expansion is bounded.
"""

from __future__ import annotations

import re

import yaml

from glore.errors import ConfigError, shown

__all__ = ["MAX_BYTES", "parse_yaml"]

MAX_BYTES = 1 << 20
"""Size of a recipe."""
MAX_DEPTH, MAX_VALUES, MAX_LETTERS = 16, 20_000, 1 << 20
"""Size of a recipe with all aliases expanded."""
_TOO_DEEP = (
    f"nested more than {MAX_DEPTH} deep, or a value that contains itself; no setting is so deep, "
    "so check brackets and aliases"
)
_TOO_MUCH = (
    f"more than {MAX_VALUES:,} values or {MAX_LETTERS:,} letters with all aliases expanded; no "
    "recipe is so large, so write only what you need"
)

_UNAMBIGUOUS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "null": re.compile(r"null|Null|NULL|"),
}
"""Spellings that every version of YAML reads alike, by type."""


class _SurpriseError(yaml.MarkedYAMLError):
    """Valid YAML that doesn't mean what it looks like."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys and values that don't mean what they look like."""

    n_values = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # so it is declared
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise _SurpriseError(problem=_TOO_MUCH, problem_mark=event.start_mark)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise _SurpriseError(
                problem=f"type tags are not supported, got {shown(tag)}; write the value alone",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)  # type: ignore[arg-type]  # as the reader itself calls it

    def compose_mapping_node(self, anchor: dict[object, yaml.Node]) -> yaml.MappingNode:
        """Keys merged by `<<` may be given again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            _check_key(key)
            if key.value in lines:
                raise yaml.MarkedYAMLError(
                    problem=(
                        f"the key {shown(key.value)} is already on line {lines[key.value]}; keep "
                        "one of them"
                    ),
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return node

    def compose_scalar_node(self, anchor: dict[object, yaml.Node]) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.style is None and (problem := self._surprise(node)):
            raise _SurpriseError(problem=problem, problem_mark=node.start_mark)
        return node

    def _surprise(self, node: yaml.ScalarNode) -> str | None:
        """What an unquoted value means if it doesn't look like that, and how to write it; none if
        it is unambiguous.
        """
        text, kind = str(node.value), node.tag.rpartition(":")[2]
        bare, quoted = shown(text).strip("'\""), f"{shown(text)} in quotes for a text"
        if kind in ("str", "merge"):
            return None
        if kind in _UNAMBIGUOUS and _UNAMBIGUOUS[kind].fullmatch(text):
            return None
        if kind == "null":
            return (
                f"{bare} means null in YAML, not a folder; write null for nothing, or {bare}/… for "
                "a path in a home folder"
            )
        if kind == "bool":
            value = str(self.construct_object(node)).lower()
            return f"{bare} would be {value}; write true or false, or {quoted}"
        if kind == "float" and re.search("inf|nan", text, re.IGNORECASE):
            return f"{bare} is no number that a setting takes; write a finite one, or {quoted}"
        if kind in ("int", "float"):
            try:
                value = str(self.construct_object(node))
            except ValueError:
                value = "another one"
            return (
                f"{bare} would be the number {shown(value).strip(chr(39))}; write that, or {quoted}"
            )
        return f"{bare} would be {'a date' if kind == 'timestamp' else 'no text'}; write {quoted}"


def _check_key(key: yaml.Node) -> None:
    if not isinstance(key, yaml.ScalarNode) or key.tag.rpartition(":")[2] not in ("str", "merge"):
        got = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        raise _SurpriseError(
            problem=f"a key is the name of a setting, got {got}; write that name",
            problem_mark=key.start_mark,
        )


def parse_yaml(text: str, where: str, numbered: bool = True) -> object:
    """The value of a YAML text. Raises ConfigError that names `where` the text is, and the line if
    `numbered`.

    Every alias becomes a value of its own, so a change to one doesn't change the others.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        return _unshared(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark and numbered else ""
        kind = "" if isinstance(error, _SurpriseError) else "not valid YAML: "
        raise ConfigError(f"{where}{line}: {kind}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{where}: {_TOO_DEEP}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _measure(
    node: yaml.Node, known: dict[int, tuple[int, int, int]], inside: set[int]
) -> tuple[int, int, int]:
    """Values, letters and depth of a node with all aliases expanded, computed without expanding
    them.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in inside:
        raise _SurpriseError(problem=_TOO_DEEP, problem_mark=node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        found = (1, len(node.value), 1)
    else:
        inside.add(id(node))
        children = (
            [n for pair in node.value for n in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        parts = [_measure(child, known, inside) for child in children]
        inside.discard(id(node))
        found = (
            1 + sum(p[0] for p in parts),
            sum(p[1] for p in parts),
            1 + max((p[2] for p in parts), default=0),
        )
    if found[0] > MAX_VALUES or found[1] > MAX_LETTERS or found[2] > MAX_DEPTH:
        raise _SurpriseError(
            problem=_TOO_DEEP if found[2] > MAX_DEPTH else _TOO_MUCH, problem_mark=node.start_mark
        )
    known[id(node)] = found
    return found


def _unshared(node: object) -> object:
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node
