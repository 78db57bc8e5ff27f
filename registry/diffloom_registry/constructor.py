"""A component's configuration is its constructor: reading it, and refusing what a recipe cannot say."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from diffloom_registry import docstrings
from diffloom_registry.fields import Fields
from diffloom_registry.kinds import Entry
from diffloom_registry.wording import describe, show, type_text

MISSING: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""

Shape = Literal["one", "list", "dict"]

_CONTAINERS: dict[object, Shape] = {
    list: "list",
    tuple: "list",
    collections.abc.Sequence: "list",
    dict: "dict",
    collections.abc.Mapping: "dict",
}
_FORMS = "{0}, {0} | None, list[{0}], tuple[{0}, ...] or dict[str, {0}]"


@dataclass(frozen=True)
class Parts:
    """The types that stand for other parts of a system.

    Attributes:
        interfaces: Interface -> name of its kind.
        services: Types that are handed in and are no components.
    """

    interfaces: Mapping[type, str]
    services: frozenset[type]

    def __contains__(self, annotation: object) -> bool:
        """Tell whether an annotation is an interface or a service."""
        return isinstance(annotation, type) and (annotation in self.interfaces or annotation in self.services)


@dataclass(frozen=True)
class Slot:
    """A parameter that takes another part.

    Attributes:
        name: The parameter.
        cls: The interface or service it is annotated with.
        kind: The interface's kind; ``None`` for a service.
        shape: One part, or a list or dict of them.
        optional: Whether it also takes ``None``.
        default: Its default, or ``MISSING``.
        is_tuple: Whether a list of parts is handed over as a tuple.
        description: What it is for.
    """

    name: str
    cls: type
    kind: str | None
    shape: Shape
    optional: bool
    default: object
    is_tuple: bool
    description: str


@dataclass(frozen=True)
class Component:
    """A verified class with what its constructor takes.

    Attributes:
        entry: Where it is published.
        cls: The class.
        summary: First paragraph of its docstring.
        annotations: Parameter -> annotation, in the order of the signature.
        defaults: Parameter -> default, or ``MISSING``.
        slots: The parameters that take other parts.
        fields: All parameters but those that take a single part; several parts count by their number.
    """

    entry: Entry
    cls: type
    summary: str
    annotations: Mapping[str, object]
    defaults: Mapping[str, object]
    slots: Mapping[str, Slot]
    fields: Fields


def read(entry: Entry, cls: type, interface: type, parts: Parts) -> Component:
    """Read and verify the constructor of a class.

    Args:
        entry: Where the class is published, for errors.
        cls: A subclass of ``interface``.
        interface: The interface of its kind.
        parts: All interfaces and services.

    Raises:
        BrokenPlugin: If a recipe could not build the class.
    """
    definer = next(base for base in cls.__mro__ if "__init__" in vars(base))
    signature = _signature(entry, definer, inherited=issubclass(interface, definer))
    annotations = _annotations(entry, definer, signature)
    defaults = {parameter.name: parameter.default for parameter in signature}
    described = docstrings.described(cls, definer)
    slots = {
        name: slot
        for name, annotation in annotations.items()
        if (slot := _slot(entry, name, annotation, defaults[name], described.get(name, ""), parts))
    }
    definitions: dict[str, Any] = {}
    for name, annotation in annotations.items():
        slot = slots.get(name)
        if slot is None:
            _verify(entry, name, annotation, defaults[name])
            definitions[f"p_{name}"] = (
                annotation,
                _field(name, annotation, defaults[name], described.get(name, "")),
            )
        elif slot.shape != "one":
            placeholder = _placeholder(slot, annotation)
            default = MISSING if slot.default is MISSING else None
            definitions[f"p_{name}"] = (placeholder, _field(name, placeholder, default, slot.description))
    try:
        model: type[BaseModel] = create_model(cls.__name__, __config__=ConfigDict(extra="forbid"), **definitions)
        fields = Fields(model, {slot.name: str(slot.kind) for slot in slots.values() if slot.shape != "one"})
    except Exception as error:
        raise entry.broken("its parameters make no schema", got=_said(error)) from error
    return Component(entry, cls, docstrings.summary(cls), annotations, defaults, slots, fields)


def _signature(entry: Entry, definer: type, inherited: bool) -> list[inspect.Parameter]:
    """Return the constructor's parameters without ``self``, all keyword-only.

    What an ``__init__`` that comes from the interface, or from beneath it, takes as ``*args`` and
    ``**kwargs`` is not the component's doing and no configuration: ``object`` and others have such.
    """
    try:
        parameters = list(inspect.signature(vars(definer)["__init__"]).parameters.values())[1:]
    except (TypeError, ValueError) as error:
        raise entry.broken("its constructor has no signature", got=_said(error)) from error
    found = []
    for parameter in parameters:
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic and inherited:
            continue
        if variadic:
            raise entry.broken(
                f"its constructor takes {str(parameter).partition(':')[0]}, whose keys no recipe can know",
                remedy="write the parameters out, keyword-only and annotated",
            )
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise entry.broken(
                f"parameter {parameter.name!r} of its constructor is positional",
                expected="keyword-only parameters",
                remedy="put a '*' before the first one",
            )
        if parameter.name == "type":
            raise entry.broken(
                "parameter 'type' of its constructor has the name of the key that chooses a component",
                remedy="rename it",
            )
        found.append(parameter)
    return found


def _annotations(entry: Entry, definer: type, signature: Sequence[inspect.Parameter]) -> dict[str, object]:
    for parameter in signature:
        if parameter.annotation is parameter.empty:
            raise entry.broken(
                f"parameter {parameter.name!r} of its constructor has no annotation",
                remedy=f"annotate it, such as {parameter.name}: int",
            )
    if not signature:
        return {}
    try:
        hints = get_type_hints(vars(definer)["__init__"], include_extras=True)
    except Exception as error:
        raise entry.broken(
            "the annotations of its constructor cannot be resolved",
            got=_said(error),
            remedy="import the names at run time, not under TYPE_CHECKING",
        ) from error
    return {parameter.name: hints[parameter.name] for parameter in signature}


def _slot(entry: Entry, name: str, annotation: object, default: object, description: str, parts: Parts) -> Slot | None:
    """Return what part a parameter takes; ``None`` if it takes plain values."""
    bare, told = _bare(annotation)
    optional = False
    if get_origin(bare) in (Union, UnionType) and NoneType in get_args(bare):
        rest = [member for member in get_args(bare) if member is not NoneType]
        if len(rest) == 1:
            bare, optional = _bare(rest[0])[0], True
    shape: Shape = "one"
    origin, inside = get_origin(bare), get_args(bare)
    is_tuple = origin is tuple
    if origin in _CONTAINERS and _of_parts(origin, inside, parts):
        shape = _CONTAINERS[origin]
        bare = inside[-1] if shape == "dict" else inside[0]
    if isinstance(bare, type) and bare in parts and (shape == "one" or bare in parts.interfaces):
        kind = parts.interfaces.get(bare)
        return Slot(name, bare, kind, shape, optional, default, is_tuple, told or description)
    for found in _classes(annotation):
        near = next((part for part in (*parts.interfaces, *parts.services) if issubclass(found, part)), None)
        if near is not None:
            raise entry.broken(
                f"parameter {name!r} of its constructor cannot be given by a recipe",
                expected=_FORMS.format(near.__name__) if near in parts.interfaces else f"{near.__name__} by itself",
                got=type_text(annotation),
            )
    return None


def _of_parts(origin: object, inside: Sequence[object], parts: Parts) -> bool:
    if origin is tuple:
        return len(inside) == 2 and inside[1] is Ellipsis and inside[0] in parts
    if _CONTAINERS[origin] == "dict":
        return len(inside) == 2 and inside[0] is str and inside[1] in parts
    return len(inside) == 1 and inside[0] in parts


def _bare(annotation: object) -> tuple[object, str]:
    """Return an annotation without ``Annotated``, and the description that was in it."""
    if get_origin(annotation) is not Annotated:
        return annotation, ""
    told = [item.description for item in get_args(annotation)[1:] if isinstance(item, FieldInfo) and item.description]
    return get_args(annotation)[0], told[-1] if told else ""


def _classes(annotation: object) -> Iterator[type]:
    """Yield every class that occurs in an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    elif isinstance(annotation, list | tuple):
        for item in annotation:
            yield from _classes(item)
    elif get_origin(annotation) is not Literal:
        yield from _classes(get_args(annotation))


def _placeholder(slot: Slot, annotation: object) -> object:
    """Return an annotation that keeps a container's bounds and forgets what is in it."""
    inner: object = list[None] if slot.shape == "list" else dict[str, None]
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    whole: object = inner | None if slot.optional else inner  # type: ignore[operator]  # an alias
    return Annotated[whole, *metadata] if metadata else whole


def _verify(entry: Entry, name: str, annotation: object, default: object) -> None:
    """Refuse an annotation that JSON cannot hold, and a default that does not fit its annotation."""
    where = f"parameter {name!r} of its constructor"
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", annotation))
        schema = adapter.json_schema()
        required = FieldInfo.from_annotation(cast("Any", annotation)).is_required()
    except Exception as error:
        raise entry.broken(
            f"{where} cannot be given by a recipe",
            expected="text, numbers, true or false, lists or mappings of them, or an interface",
            got=type_text(annotation),
        ) from error
    if not required:
        raise entry.broken(f"{where} has its default inside Field", remedy=f"write {name}: … = default")
    for found in _classes(annotation):
        if issubclass(found, BaseModel) and found.model_config.get("extra") != "forbid":
            raise entry.broken(f"{where} is a model that ignores unknown keys", remedy="set extra='forbid'")
    if default is MISSING:
        return
    try:
        adapter.validate_python(default, strict=True)
    except ValidationError as error:
        raise entry.broken(
            f"the default of {where} is wrong",
            expected=describe(schema, schema.get("$defs", {})) or type_text(annotation),
            got=show(default),
            remedy="correct the default, or its annotation",
        ) from error


def _field(name: str, annotation: object, default: object, description: str) -> FieldInfo:
    told = FieldInfo.from_annotation(cast("Any", annotation)).description
    settings: dict[str, Any] = {"alias": name}
    if default is not MISSING:
        settings["default"] = default
    if description and not told:
        settings["description"] = description
    info: FieldInfo = Field(**settings)
    return info


def _said(error: BaseException) -> str:
    """Return an exception's type and first line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
