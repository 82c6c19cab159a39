"""Sections that have a class for each `kind`: the task and the engine.

A kind is built in, or comes from an installed package through an entry point, whose name is the
kind and whose value is the settings class (docs/extending.md):

    [project.entry-points."glore.tasks"]
    sums = "my_package.sums:SumsSettings"

A class holds the settings that its kind reads. A recipe may also give settings that only other
kinds read, as long as they have the defaults of those kinds: the `config.yaml` of an older run has
them all. Entry points are looked up only for a kind or a setting that is not built in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, Self, TypeVar, cast

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from glore.config.plugins import plugin, plugin_names
from glore.config.section import NEWER, Settings
from glore.errors import ConfigError, shown

__all__ = ["KindSettings", "Kinds"]


class KindSettings(Settings):
    """Base of a section with kinds. Called itself, it builds an object of the class that `kind`
    names: `EngineSettings(kind="http", url=…)` is an `HttpEngineSettings`.
    """

    kind: str
    """Which one; it decides which settings the section has."""

    opener: ClassVar[str]
    """`module:function` that makes a task or an engine of these settings; imported at first use."""
    unread: ClassVar[frozenset[str]] = frozenset()
    """Fields of the base that this kind doesn't read. They keep their defaults."""
    kinds: ClassVar[Kinds[KindSettings]]
    """The classes of all kinds; set on the base alone."""

    def __new__(cls, /, **data: object) -> Self:
        chosen = cls.kinds.class_for(data) if cls is cls.kinds.base else cls
        return cast(Self, super().__new__(chosen))

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        if cls is cls.kinds.base:
            return cast(Self, cls.kinds.class_for(data).model_validate(data))
        return handler(cls.kinds.own_settings(cls, data))

    @classmethod
    def read_fields(cls) -> list[str]:
        """Names of the settings that this kind reads."""
        return [name for name in cls.model_fields if name not in cls.unread]

    def fingerprint_fields(self) -> dict[str, object]:
        """The settings that results depend on, by their names below the section. Those marked
        `NEWER` are left out at their defaults.
        """
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in fields}
        return {
            name: value
            for name, value in values.items()
            if NEWER not in fields[name].metadata or value != fields[name].default
        }


Base = TypeVar("Base", bound=KindSettings, covariant=True)


class Kinds(Generic[Base]):
    """The kinds of a section: those built in, and those of installed packages.

    `noun` says in messages what the settings are for. `section` is their place in a recipe; none
    where there are several.
    """

    def __init__(
        self,
        base: type[Base],
        *builtin: type[Base],
        group: str,
        noun: str,
        section: str | None = None,
    ) -> None:
        self.base = base
        self.builtin = builtin
        self._builtin = {str(kind.model_fields["kind"].default): kind for kind in builtin}
        self._group, self._noun, self._section = group, noun, section

    def names(self) -> list[str]:
        """All kinds, the built-in ones first."""
        return [*self._builtin, *sorted(plugin_names(self._group) - self._builtin.keys())]

    def class_for(self, data: Mapping[str, object]) -> type[Base]:
        """The class for the `kind` in `data`. Raises ValidationError for an unknown kind,
        ConfigError for a package whose class can't be loaded.
        """
        kind = data.get("kind", self.base.model_fields["kind"].default)
        if isinstance(kind, str) and kind in self._builtin:
            return self._builtin[kind]
        names = self.names()
        if not isinstance(kind, str) or kind not in names:
            expected = " or ".join(
                filter(None, (", ".join(map(repr, names[:-1])), repr(names[-1])))
            )
            raise ValidationError.from_exception_data(
                self.base.__name__,
                [
                    {
                        "type": "literal_error",
                        "loc": ("kind",),
                        "input": kind,
                        "ctx": {"expected": expected},
                    }
                ],
            )
        return self._loaded(kind)

    def own_settings(
        self, cls: type[KindSettings], data: Mapping[str, object]
    ) -> dict[str, object]:
        """`data` without the settings that only other kinds read. Raises ValueError for one of
        them that doesn't have its default.
        """
        own = dict(data)
        for name in [name for name in data if name not in cls.read_fields()]:
            readers = self._readers(name)
            defaults = [
                kind.model_fields[name].get_default(call_default_factory=True)
                for kind in readers.values()
            ]
            if any(_is_default(data[name], default) for default in defaults):
                del own[name]
            elif readers:
                value = "{}" if isinstance(defaults[0], Settings) else json.dumps(defaults[0])
                where = self._section and f" (on the command line {self._section}.{name}={value})"
                raise ValueError(
                    f"{name} is for {self._noun} of kind {' or '.join(readers)}, got kind "
                    f"{cls.model_fields['kind'].default}; remove it{where or ''} or change kind"
                )
        return own

    def _readers(self, name: str) -> dict[str, type[Base]]:
        """The kinds that read a setting. Packages are asked only where no built-in kind does."""
        builtin = {k: cls for k, cls in self._builtin.items() if name in cls.read_fields()}
        return builtin or {k: cls for k, cls in self._plugins() if name in cls.read_fields()}

    def _plugins(self) -> Iterator[tuple[str, type[Base]]]:
        for kind in self.names()[len(self._builtin) :]:
            yield kind, self._loaded(kind)

    def _loaded(self, kind: str) -> type[Base]:
        found = plugin(self._group, kind)
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise ConfigError(
                f"the entry point {kind} in {self._group} is {shown(found)}; it must name a "
                f"subclass of {self.base.__name__}"
            )
        if found.model_fields["kind"].default != kind:
            raise ConfigError(
                f"the entry point {kind} in {self._group} names {found.__name__}, whose field kind "
                f"has the default {shown(found.model_fields['kind'].default)}; give both one name"
            )
        return found


def _is_default(value: object, default: object) -> bool:
    """Whether a value as YAML writes it equals a default; in a section, settings may be missing."""
    if isinstance(value, Mapping) and isinstance(default, Settings):
        fields = dict(default)
        return all(k in fields and _is_default(v, fields[k]) for k, v in value.items())
    try:
        return bool(to_jsonable_python(value) == to_jsonable_python(default))
    except ValueError:  # nothing that a setting could be
        return False
