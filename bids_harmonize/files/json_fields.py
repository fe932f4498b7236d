"""Dataclasses that are JSON objects: each key is spelt once, beside the attribute that holds its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias, cast

from bids_harmonize.errors import BadData
from bids_harmonize.files.schema import is_object, list_of, wrong_value

Holds: TypeAlias = "Callable[[object], bool] | type[JsonFields] | list[type[JsonFields]]"
"""What a value must be: something that passes a check, an object of a class, or a list of such objects."""


@dataclass(frozen=True, kw_only=True)
class JsonKey:
    """A key of an object; the parameters of `json_key` and `json_note` describe it."""

    name: str
    holds: Holds
    default: object
    if_empty: object
    is_note: bool

    def read(self, value: object, path: Path, inside: str) -> Any:
        """The attribute's value; the parameters and errors are those of `JsonFields.from_json`."""
        name, kind = f"{inside}{self.name}", self.holds
        if value == self.if_empty:
            return self.default
        if isinstance(kind, type) and isinstance(value, Mapping):
            return kind.from_json(value, path, f"{name}.")  # type: ignore[attr-defined]
        if isinstance(kind, list) and list_of(is_object)(value):
            return [kind[0].from_json(element, path, f"{name}.") for element in cast("list[Any]", value)]
        if isinstance(kind, type | list) or not kind(value):
            raise wrong_value(path, name)
        return value

    def refuses(self, value: object) -> bool:
        """Whether `read` raises an error."""
        try:
            self.read(value, Path(), "")
        except BadData:
            return True
        return False


def json_key(
    name: str,
    holds: Holds,
    *,
    default: object = MISSING,
    if_empty: object = MISSING,
    required: bool = False,
) -> Any:
    """A field of a `JsonFields` class.

    Parameters
    ----------
    name
        The key.
    holds
        What the value must be.
    default
        The value where the object lacks the key; without it, None, or an object of the class without values.
    if_empty
        What is written where there is no value; without it, the key is left out.
    required
        Whether the object must have the key.
    """
    if default is MISSING and not required:
        default = holds() if isinstance(holds, type) else None
    key = JsonKey(name=name, holds=holds, default=default, if_empty=if_empty, is_note=False)
    return field(default=default, metadata={"json": key})


def json_note(name: str, holds: Holds, *, if_empty: object = MISSING) -> Any:
    """A field of a `KeptJsonFields` class that nothing depends on: a value of another kind is no error.

    It is then among the object's other keys, and the attribute is None, as where the key is missing.
    """
    key = JsonKey(name=name, holds=holds, default=None, if_empty=if_empty, is_note=True)
    return field(default=None, metadata={"json": key})


class JsonFields:
    """The base of dataclasses whose fields are made by `json_key`; fields made otherwise are in no file.

    They are read as a sidecar is: null counts as missing, and keys that the class does not know are ignored.
    """

    # What the file of an object that lacks a required key is called in the error message.
    INCOMPLETE: ClassVar[str] = "damaged"

    @classmethod
    def json_keys(cls) -> dict[str, JsonKey]:
        """The key of each attribute."""
        parts = fields(cls)  # type: ignore[arg-type]
        return {part.name: part.metadata["json"] for part in parts if "json" in part.metadata}

    @classmethod
    def required_keys(cls) -> tuple[str, ...]:
        """Keys without which an object is refused."""
        return tuple(key.name for key in cls.json_keys().values() if key.default is MISSING)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path, inside: str = "") -> Self:
        """Read an object.

        Parameters
        ----------
        content
            The object.
        path
            The file that holds it, for the error message.
        inside
            Keys that lead to the object in the file, each with a dot behind it.

        Raises
        ------
        BadData
            A required key is missing, or a value is not what it must be.
        """
        known = {key: value for key, value in content.items() if value is not None}
        return cls(**cls._attributes(known, path, inside))

    @classmethod
    def _attributes(cls, content: Mapping[str, Any], path: Path, inside: str) -> dict[str, Any]:
        required = cls.required_keys()
        if not content.keys() >= set(required):
            where = inside.removesuffix(".") or "it"
            raise BadData(f"{path} is {cls.INCOMPLETE}: {where} must hold {', '.join(required)}")
        return {
            name: key.read(content[key.name], path, inside)
            for name, key in cls.json_keys().items()
            if key.name in content
        }

    def to_json(self) -> dict[str, Any]:
        """The object, its keys in the order of the fields."""
        content = {}
        for name, key in self.json_keys().items():
            value = getattr(self, name)
            if value is None or (isinstance(value, JsonFields) and value == key.default):
                if key.if_empty is not MISSING:
                    content[key.name] = key.if_empty
            elif isinstance(key.holds, list):
                content[key.name] = [element.to_json() for element in value]
            else:
                content[key.name] = value.to_json() if isinstance(value, JsonFields) else value
        return content


@dataclass(frozen=True, kw_only=True)
class KeptJsonFields(JsonFields):
    """The base of those that are written as they were read, whatever else their file holds.

    Null is a value like others.

    Attributes
    ----------
    other
        Keys that the class does not know, and notes (`json_note`) that are not what they should be.
    keys_read
        All keys in the order of the file; empty if the object was not read.
    """

    other: Mapping[str, Any] = field(default_factory=dict)
    keys_read: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path, inside: str = "") -> Self:
        """Read an object; see `JsonFields.from_json`."""
        keys = {key.name: key for key in cls.json_keys().values()}
        other = {
            name: value
            for name, value in content.items()
            if name not in keys or (keys[name].is_note and keys[name].refuses(value))
        }
        known = {name: value for name, value in content.items() if name not in other}
        return cls(**cls._attributes(known, path, inside), other=other, keys_read=tuple(content))

    def to_json(self) -> dict[str, Any]:
        """The object, its keys in the order of the file that it was read from, and then of the fields."""
        content = super().to_json()
        content |= self.other
        if self.keys_read:
            # What stands for no value is not added to a file that went without it.
            for name, key in self.json_keys().items():
                if getattr(self, name) is None and key.name not in self.keys_read:
                    content.pop(key.name, None)
        return {name: content[name] for name in self.keys_read if name in content} | content
