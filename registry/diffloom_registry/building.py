"""From a `Config` to the object: what is missing is told first, then children are built first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from diffloom_registry.config import Config
from diffloom_registry.constructor import MISSING
from diffloom_registry.errors import ConfigError, DiffloomError, Problem, article, dotted, listed

Inject = Callable[[type], object] | Mapping[type, object]
"""What the system provides: interface or service -> object, or ``None`` if there is none."""

Finish = Callable[[Config, object], None]
"""What is done to each object once it is built, such as acting on its extras."""


@dataclass
class Builder:
    """One construction of a component with all that is nested in it.

    Attributes:
        inject: What the system provides.
        finish: Called for each object that is built, children first.
        provided: What was asked for, each type once.
    """

    inject: Inject
    finish: Finish | None = None
    provided: dict[type, object] = field(default_factory=dict)

    def build(self, config: Config) -> object:
        """Build the component, or raise a `ConfigError` that lists all parts that nothing provides."""
        problems = list(self._unmet(config))
        if problems:
            raise ConfigError(problems)
        return self._object(config)

    def _provide(self, cls: type) -> object:
        if cls not in self.provided:
            inject = self.inject
            self.provided[cls] = inject.get(cls) if isinstance(inject, Mapping) else inject(cls)
        return self.provided[cls]

    def _unmet(self, config: Config) -> Iterator[Problem]:
        for name, cls in config.injected.items():
            slot = config.slots[name]
            if self._provide(cls) is None and slot.default is MISSING and not slot.optional:
                what = article(slot.kind or cls.__name__)
                way = f"give {dotted((*config.path, name))} as a mapping with 'type', or " if slot.kind else ""
                yield Problem(
                    (*config.path, name),
                    f"the {config.kind} {config.name!r} needs {what} and nothing provides one",
                    remedy=f"{way}build it in a system that has {what}",
                )
        for child in config.children.values():
            for nested in _configs(child):
                yield from self._unmet(nested)

    def _object(self, config: Config) -> object:
        arguments = dict(config.values)
        for name, cls in config.injected.items():
            part = self._provide(cls)
            if part is not None or config.slots[name].default is MISSING:
                arguments[name] = part
        for name, child in config.children.items():
            arguments[name] = self._child(child)
        built = _construct(config, arguments)
        if self.finish is not None:
            self.finish(config, built)
        return built

    def _child(self, child: object) -> object:
        if isinstance(child, Config):
            return self._object(child)
        if isinstance(child, list):
            return [self._child(item) for item in child]
        if isinstance(child, tuple):
            return tuple(self._child(item) for item in child)
        if isinstance(child, dict):
            return {key: self._child(item) for key, item in child.items()}
        return child


def _construct(config: Config, arguments: Mapping[str, object]) -> object:
    """Call the class; a ``ValueError`` is its word on the values, anything else a failure of its own."""
    try:
        built: object = config.cls(**arguments)
    except DiffloomError:
        raise
    except ValueError as error:
        message = f"{config.kind} {config.name!r} refuses these values: {error}"
        raise ConfigError([Problem(config.path, message)]) from error
    except Exception as error:
        where = ": ".join(part for part in (dotted(config.path), config.entry.where) if part)
        makers = f"tell the makers of {config.entry.source}" if config.entry.distribution else "mend it"
        raise DiffloomError(
            "its constructor failed",
            where=where,
            got=f"{type(error).__name__}: {error}",
            remedy=f"if these values are right, {makers}",
        ) from error
    _complete(config, built)
    return built


def _complete(config: Config, built: object) -> None:
    """Refuse an object that lacks an attribute which its interface declares: annotated there, and without a value."""
    bases = [base for base in config.cls.__mro__ if inspect.isabstract(base) and base is not config.cls]
    declared = {name: base for base in reversed(bases) for name in inspect.get_annotations(base)}
    left = [name for name in declared if not hasattr(built, name)]
    if left:
        bases = list(dict.fromkeys(declared[name] for name in left))
        raise config.entry.broken(
            f"it does not say its {listed([repr(name) for name in left])}",
            expected=f"what {listed([base.__name__ for base in bases])} declares",
            remedy="set it on the class or in the constructor",
        )


def _configs(child: object) -> Iterator[Config]:
    """Yield the configurations in a child: itself, or those in its list or dict."""
    if isinstance(child, Config):
        yield child
    elif isinstance(child, list | tuple):
        yield from (item for item in child if isinstance(item, Config))
    elif isinstance(child, dict):
        yield from (item for item in child.values() if isinstance(item, Config))
