"""Names to classes: discovery, verification, configuration and construction of components.

The law: whatever an installed package does, `names` and `entries` import nothing, a component that cannot be
used harms nobody but who asks for it, and a call that fails leaves the registry as it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from pydantic import BaseModel

from diffloom_registry import schema
from diffloom_registry.building import Builder, Finish, Inject
from diffloom_registry.config import Config
from diffloom_registry.constructor import Component, Parts, read
from diffloom_registry.discovery import NAME, NAME_RULE, Broken, Discovered, discover, normalised
from diffloom_registry.errors import (
    BrokenPlugin,
    ConfigError,
    DiffloomError,
    KeyPath,
    Problem,
    UnknownComponent,
    did_you_mean,
    listed,
    nearest,
)
from diffloom_registry.fields import Fields
from diffloom_registry.fitting import fit
from diffloom_registry.kinds import Entry, Kind
from diffloom_registry.loading import load, locate
from diffloom_registry.override import Override
from diffloom_registry.parameters import Parameter, common, own
from diffloom_registry.validation import Validator
from diffloom_registry.wording import Json


class Registry:
    """The components of some kinds: those that installed distributions publish, and those added here.

    Args:
        kinds: What kinds there are.
        prefix: The entry-point group of a kind is ``prefix.kind``. Distributions that the environment
            variable ``PREFIX_DISABLE_PLUGINS`` lists, separated by commas, are left alone.
        services: ``package.module:Class`` of what a constructor may ask for beside components.
    """

    def __init__(self, kinds: Iterable[Kind], *, prefix: str = "diffloom", services: Iterable[str] = ()) -> None:
        self.kinds: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in kinds})
        self.prefix = prefix
        self.services = tuple(services)
        self.load_seconds: dict[Entry, float] = {}
        """How long the import of each entry's module took."""
        self._added: list[Component] = []
        self._loaded: dict[Entry, Component] = {}
        self._extras: dict[str, Fields | None] = {}

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted; imports nothing."""
        return sorted({entry.name for entry in self.entries(kind)})

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return what is published, sorted by kind and name; imports nothing.

        Args:
            kind: Only this kind.
        """
        kinds = list(self.kinds) if kind is None else [self._kind(kind).name]
        added = {(component.entry.kind, component.entry.name): component.entry for component in self._added}
        found = [entry for entry in self._discovered.entries if (entry.kind, entry.name) not in added]
        found = [entry for entry in (*found, *added.values()) if entry.kind in kinds]
        return sorted(found, key=lambda entry: (kinds.index(entry.kind), entry.name, entry.distribution or ""))

    def get(self, kind: str, name: str) -> type:
        """Load a component's class and verify it.

        Args:
            kind: Its kind.
            name: Its name, or ``distribution/name`` where several distributions publish one name.

        Raises:
            UnknownComponent: If there is none of that name.
            BrokenPlugin: If there is one and it cannot be used.
        """
        return self.component(kind, name).cls

    def component(self, kind: str, name: str) -> Component:
        """Load a component like `get`, and return it with all that is known of its constructor."""
        self._kind(kind)
        for component in reversed(self._added):
            if (component.entry.kind, component.entry.name) == (kind, name):
                return component
        return self._load(self._entry(kind, name))

    def add(self, kind: str, name: str, cls: type) -> Override:
        """Publish a class under a name, at once; for notebooks and tests.

        Args:
            kind: Its kind.
            name: Its name; it shadows what has that name already.
            cls: The class.

        Returns:
            What undoes it: use it in a ``with`` statement or ``close()`` it.

        Raises:
            BrokenPlugin: If the class cannot be used; then nothing has changed.
        """
        value = f"{getattr(cls, '__module__', '?')}:{getattr(cls, '__qualname__', repr(cls))}"
        entry = Entry(self._kind(kind).name, name, value)
        if not NAME.fullmatch(name):
            raise entry.broken("it cannot have this name", expected=NAME_RULE, got=repr(name))
        component = self._verified(entry, cls)
        self._added.append(component)

        def undo() -> None:
            self._added = [other for other in self._added if other is not component]

        return Override(undo)

    def parameters(self, kind: str, name: str) -> list[Parameter]:
        """Return the keys that a component accepts, those of its constructor first."""
        component = self.component(kind, name)
        extras = self.extras(kind)
        return [*own(component), *(common(extras) if extras else ())]

    def validate(self, kind: str, data: Mapping[str, object], *, path: KeyPath = (), strict: bool = True) -> Config:
        """Validate the configuration of a component and of all that are nested in it.

        Args:
            kind: Its kind.
            data: Its parameters by name; ``type`` names the component.
            path: Where the data stand in a recipe, for errors.
            strict: Take the data as those of a recipe, where text is never a number; otherwise as Python
                objects, among which parts may be built already.

        Raises:
            ConfigError: If anything is wrong; it lists all of it.
        """
        self._kind(kind)
        validator = Validator(self.component, self.extras, self.names, strict)
        config = validator.config(kind, data, tuple(path))
        if config is None or validator.problems:
            raise ConfigError(validator.problems) from validator.cause
        return config

    def instantiate(
        self, config: Config, inject: Inject = MappingProxyType({}), *, finish: Finish | None = None
    ) -> object:
        """Build a component and all that are nested in it.

        Args:
            config: What `validate` returned.
            inject: Interface or service -> the object that the system provides; ``None`` if it has none. Each
                type is asked for once.
            finish: Called with each configuration and what was built from it, children first: the place to
                act on extras.

        Raises:
            ConfigError: If a part is needed that nothing provides, or a constructor refuses its values.
            DiffloomError: If a constructor fails.
        """
        return Builder(inject, finish).build(config)

    def build(self, kind: str, name: str, /, **params: object) -> object:
        """Validate parameters and build a component; other parts may be given as objects.

        Raises:
            UnknownComponent: If there is none of that name.
            BrokenPlugin: If there is one and it cannot be used.
            ConfigError: If a parameter is wrong or missing.
        """
        self.component(kind, name)
        extras = self.extras(kind)
        for key in params:
            if extras is not None and key in extras.properties:
                remedy = "leave it out, or validate a recipe and instantiate it with what acts on such keys"
                raise ConfigError([Problem((key,), "a key of recipes, which nothing here acts on", remedy=remedy)])
        return self.instantiate(self.validate(kind, {**params, "type": name}, strict=False))

    def schema(self) -> Json:
        """Return the JSON Schema ``{"$defs": {kind: ...}}`` of all that can be used."""
        components: dict[str, list[tuple[str, Component]]] = {kind: [] for kind in self.kinds}
        for kind, named in components.items():
            entries = self.entries(kind)
            for entry in entries:
                clash = sum(other.name == entry.name for other in entries) > 1
                name = f"{entry.distribution}/{entry.name}" if clash else entry.name
                try:
                    named.append((name, self.component(kind, name)))
                except DiffloomError:
                    continue
        return schema.definitions(components, {kind: self.extras(kind) for kind, named in components.items() if named})

    def broken(self) -> list[Broken]:
        """Load everything and return what cannot be used, and why."""
        found = list(self._discovered.broken)
        clashes: set[tuple[str, str]] = set()
        for entry in self._discovered.entries:
            try:
                self._load(entry)
            except DiffloomError as error:
                found.append(Broken(entry, error))
            clash = self._clash(entry.kind, entry.name)
            if clash is not None and (entry.kind, entry.name) not in clashes:
                clashes.add((entry.kind, entry.name))
                found.append(Broken(entry, clash))
        return found

    def extras(self, kind: str) -> Fields | None:
        """Return the keys that every component of a kind accepts beside its constructor's, if any."""
        if kind not in self._extras:
            value = self._kind(kind).extras
            model = None if value is None else self._core(value, f"the extras of kind {kind!r}")
            if model is not None and not issubclass(model, BaseModel):
                raise DiffloomError(f"the extras of kind {kind!r} are no pydantic model", got=str(value))
            self._extras[kind] = None if model is None else Fields(model)
        return self._extras[kind]

    @cached_property
    def _discovered(self) -> Discovered:
        groups = {f"{self.prefix}.{kind}": kind for kind in self.kinds}
        disabled = os.environ.get(f"{self.prefix.upper()}_DISABLE_PLUGINS", "")
        return discover(groups, near=f"{self.prefix}.", disabled=disabled)

    @cached_property
    def _parts(self) -> Parts:
        interfaces = {self._core(kind.interface, f"kind {kind.name!r}"): kind.name for kind in self.kinds.values()}
        return Parts(interfaces, frozenset(self._core(value, "a service") for value in self.services))

    def _kind(self, name: str) -> Kind:
        if name not in self.kinds:
            near = nearest(name, self.kinds)
            raise DiffloomError(
                f"there is no kind of component named {name!r}",
                expected=f"one of {listed(list(self.kinds))}",
                remedy=did_you_mean(near) if near else None,
            )
        return self.kinds[name]

    def _core(self, value: str, where: str) -> type:
        """Import a class that the program itself names."""
        try:
            found = locate(value)
        except Exception as error:
            raise DiffloomError(
                f"{value} cannot be imported", where=where, got=f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, type):
            raise DiffloomError(f"{value} is no class", where=where)
        return found

    def _entry(self, kind: str, name: str) -> Entry:
        """Return the one entry that a name means."""
        owner, _, bare = name.rpartition("/")
        found = [entry for entry in self._discovered.entries if (entry.kind, entry.name) == (kind, bare)]
        if owner:
            found = [entry for entry in found if normalised(entry.distribution or "") == normalised(owner)]
        clash = self._clash(kind, bare) if len(found) > 1 else None
        if clash is not None:
            raise clash
        if found:
            return found[0]
        for broken in self._discovered.broken:
            if (broken.entry.kind, broken.entry.name) == (kind, bare):
                raise broken.error
        elsewhere = [other for other in self.kinds if other != kind and bare in self.names(other)]
        known = self.names(kind)
        if owner and bare in known:
            known = [f"{entry.distribution}/{bare}" for entry in self.entries(kind) if entry.name == bare]
        raise UnknownComponent(kind, name, installed=known, elsewhere=elsewhere)

    def _clash(self, kind: str, name: str) -> BrokenPlugin | None:
        """Return the error for a name that is published more than once."""
        found = [entry for entry in self._discovered.entries if (entry.kind, entry.name) == (kind, name)]
        if len(found) < 2:
            return None
        owners = sorted({str(entry.distribution) for entry in found})
        choices = " or ".join(f"'{owner}/{name}'" for owner in owners)
        return BrokenPlugin(
            "published more than once",
            distribution=", ".join(owners),
            version=", ".join(str(entry.version) for entry in found),
            value=", ".join(entry.value for entry in found),
            where=f"{kind} {name!r}",
            got=" and ".join(f"{entry.value} from {entry.source}" for entry in found),
            remedy=f"choose {choices}" if len(owners) > 1 else f"correct the entry points of {owners[0]}",
        )

    def _load(self, entry: Entry) -> Component:
        if entry not in self._loaded:
            _ = self._parts  # what the program itself needs is imported first: it is no plugin's fault, nor its time
            began = time.perf_counter()
            found = load(entry, self.prefix)
            self.load_seconds[entry] = time.perf_counter() - began
            self._loaded[entry] = self._verified(entry, found)
        return self._loaded[entry]

    def _verified(self, entry: Entry, cls: object) -> Component:
        """Check everything that a component promises by being published."""
        interface = self._core(self.kinds[entry.kind].interface, f"kind {entry.kind!r}")
        fitting = fit(entry, cls, interface, self._parts.interfaces)
        component = read(entry, fitting, interface, self._parts)
        extras = self.extras(entry.kind)
        for key in component.annotations:
            if extras is not None and key in extras.properties:
                raise entry.broken(
                    f"parameter {key!r} of its constructor is a key that every {entry.kind} has anyway",
                    remedy="rename it",
                )
        return component
