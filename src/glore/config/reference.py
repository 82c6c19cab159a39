"""Every setting of a run as data: read from the classes, with the text that stands below a field.

`glore settings` prints it, and the page of settings is made from it (docs/site.py).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from glore.config.kinds import KindSettings
from glore.config.run import RunConfig

__all__ = ["Section", "Setting", "all_sections", "as_lines", "as_markdown"]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name below the section, values, default as YAML, and meaning."""

    name: str
    values: str
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Settings of one class. `paths`: where a recipe has them, several for a class that several
    sections use, and none for the run itself. `kind`: of a section with kinds.
    """

    paths: tuple[str, ...]
    kind: str
    meaning: str
    settings: tuple[Setting, ...]


def all_sections(root: type[BaseModel] = RunConfig) -> list[Section]:
    """All sections, a class once, in the order of their first place in a recipe."""
    places: dict[type[BaseModel], list[str]] = {}
    for path, kind in _classes(root, ""):
        places.setdefault(kind, []).append(path)
    return [_section(kind, tuple(paths)) for kind, paths in places.items()]


def _classes(kind: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Path and class of this section and of all below it."""
    yield path, kind
    for name, field in kind.model_fields.items():
        for section in _sections_of(field.annotation):
            below = f"{path}.{name}" if path else name
            if issubclass(section, KindSettings):
                if path == "engine":
                    continue  # an engine inside another has the same settings
                for each in section.kinds.builtin:
                    yield from _classes(each, below)
            else:
                yield from _classes(section, below)


def _sections_of(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in _sections_of(a)]


def _section(kind: type[BaseModel], paths: tuple[str, ...]) -> Section:
    meanings = _meanings(kind)
    names = kind.read_fields() if issubclass(kind, KindSettings) else list(kind.model_fields)
    fields = {name: kind.model_fields[name] for name in names}
    return Section(
        paths,
        str(fields["kind"].default) if issubclass(kind, KindSettings) else "",
        " ".join((inspect.getdoc(kind) or "").split()),
        tuple(
            Setting(name, _values(field), _default(field), meanings.get(name, ""))
            for name, field in fields.items()
            if not _sections_of(field.annotation) or _may_be_absent(field)
        ),
    )


def _may_be_absent(field: FieldInfo) -> bool:
    return field.default is None


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    """Field → the text below it, those of base classes too."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if not issubclass(cls, BaseModel) or not cls.__module__.startswith("glore."):
            continue
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _values(field: FieldInfo) -> str:
    """What the setting takes: type or choices, and limits."""
    limits = [
        f"{sign} {value:g}"
        for item in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if isinstance(value := getattr(item, name, None), int | float)
    ]
    return " ".join([_type(field.annotation), ", ".join(limits)]).strip()


def _type(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, type(int | str)):
        return " or ".join(dict.fromkeys(map(_type, arguments)))
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    if origin is tuple:
        return "list of " + (_type(arguments[0]) if arguments[-1] is ... else str(len(arguments)))
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names: dict[object, str] = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    return json.dumps(default, ensure_ascii=False)


def as_lines(word: str | None = None) -> list[str]:
    """Settings as lines of text: `PATH  (values; default)  meaning`. `word`: those alone that have
    it in their path, or whose section begins with it.
    """
    lines = []
    for section in all_sections():
        for setting in section.settings:
            paths = [f"{path}.{setting.name}" if path else setting.name for path in section.paths]
            if word is not None and not any(word in path for path in paths):
                continue
            kind = f" [kind {section.kind}]" if section.kind else ""
            default = f"; default {setting.default}" if setting.default else ""
            lines += [
                f"{', '.join(paths)}{kind}",
                f"    {setting.values}{default}",
                *(["    " + setting.meaning] if setting.meaning else []),
            ]
    return lines


def as_markdown() -> str:
    """The page of settings."""
    out = ["# Settings", "", _HEAD, ""]
    for section in all_sections():
        places = ", ".join(f"`{path}`" for path in section.paths if path)
        kind = f", kind `{section.kind}`" if section.kind else ""
        out += [f"## {places or 'The run'}{kind}", "", section.meaning, ""]
        if not section.settings:
            continue
        out += ["| setting | values | default | meaning |", "|---|---|---|---|"]
        for s in section.settings:
            default = f"`{s.default}`" if s.default not in ("", "needed") else s.default
            cells = (f"`{s.name}`", s.values, default, s.meaning)
            out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        out.append("")
    return "\n".join(out)


_HEAD = (
    "Every setting of a recipe, made from the classes in `src/glore/config/`. On the command line: "
    "`glore settings`, or `glore settings WORD` for some of them. A recipe gives them as YAML, the "
    "command line as `key.path=value`. Settings of kinds that installed packages add are not here."
)
