"""Behaviour that plugins add: functions that are called when something happens.

The law: nothing acts because it is installed; a plugin acts once it is enabled by name. One that cannot be
enabled, or that raises when called, takes no other down, and the error names it with its distribution.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import ModuleType

import pluggy

from diffloom_registry.discovery import Broken, Discovered, discover
from diffloom_registry.errors import BrokenPlugin, DiffloomError, UnknownComponent, listed
from diffloom_registry.kinds import Entry
from diffloom_registry.loading import load
from diffloom_registry.override import Override


class Hooks:
    """The hook plugins of one program.

    Args:
        project: Name of pluggy's markers, and prefix of the environment variable that disables distributions.
        specs: Module or class whose functions marked with ``pluggy.HookspecMarker(project)`` are the hooks.
        group: Entry-point group of the plugins, of the form ``name = package.module`` or
            ``name = package.module:object``; a class is called without arguments to give the plugin.
    """

    def __init__(self, project: str, specs: ModuleType | type, group: str | None = None) -> None:
        self.project = project
        self.specs = specs
        self.group = group or f"{project}.hooks"
        self.quarantined: list[Broken] = []
        """Plugins that were asked for and could not be enabled."""
        self.load_seconds: dict[Entry, float] = {}
        """How long the import of each entry's module took."""
        self._manager = self._new_manager()
        self._entries: dict[str, Entry] = {}

    def available(self) -> list[Entry]:
        """Return the plugins that are installed, sorted by name; imports nothing."""
        return sorted(self._discovered.entries, key=lambda entry: (entry.name, entry.distribution or ""))

    def enabled(self) -> list[str]:
        """Return the names of the plugins that act, in the order in which they were enabled."""
        return list(self._entries)

    def enable(self, names: Iterable[str]) -> list[Broken]:
        """Load plugins and let them act; those that do already stay as they are.

        Args:
            names: Their names.

        Returns:
            Those that cannot be used, and why; they are added to `quarantined`, and the others act.

        Raises:
            UnknownComponent: If a name is not installed; then nothing has changed.
        """
        wanted = [name for name in dict.fromkeys(names) if name not in self._entries]
        chosen = [self._choices(name) for name in wanted]
        failed: list[Broken] = []
        for name, choices in zip(wanted, chosen, strict=True):
            try:
                entry = self._only(name, choices)
                self._act(self._loaded(entry), entry)
            except BrokenPlugin as error:
                failed.append(Broken(choices[0], error))
        asked = {broken.entry.name for broken in failed} | set(wanted)
        self.quarantined = [old for old in self.quarantined if old.entry.name not in asked] + failed
        return failed

    def register(self, plugin: object, name: str) -> Override:
        """Let an object act, at once.

        Args:
            plugin: A module or object with functions marked with ``pluggy.HookimplMarker(project)``.
            name: Its name, for errors.

        Returns:
            What undoes it: use it in a ``with`` statement or ``close()`` it.

        Raises:
            BrokenPlugin: If it has a function for which there is no hook, or one with wrong arguments.
            DiffloomError: If the name or the object is registered already.
        """
        if name in self._entries or self._manager.is_registered(plugin):
            raise DiffloomError("registered already", where=f"hook plugin {name!r}", remedy="close the first one")
        self._act(plugin, Entry("hooks", name, getattr(plugin, "__name__", type(plugin).__name__)))

        def undo() -> None:
            self._manager.unregister(plugin)
            del self._entries[name]

        return Override(undo)

    def call(
        self, hook: str, /, *, on_error: Callable[[BrokenPlugin], None] | None = None, **arguments: object
    ) -> list[object]:
        """Call a hook in every plugin that has it, each isolated from the others.

        Args:
            hook: Name of the hook.
            on_error: What to do with the error of a plugin that raises. Without it the first such error is
                raised after all plugins were called; notes on it tell of the others.
            arguments: The hook's arguments.

        Returns:
            What the plugins returned, without ``None``; the one enabled last comes first.

        Raises:
            DiffloomError: If there is no such hook, or the arguments are not its.
            BrokenPlugin: If a plugin raised and there is no ``on_error``.
        """
        results: list[object] = []
        errors: list[BrokenPlugin] = []
        for implementation in reversed(self._caller(hook, arguments).get_hookimpls()):
            try:
                result = implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as raised:  # noqa: BLE001  a plugin may raise anything, and must not stop the others
                errors.append(self._raised(implementation, hook, raised))
            else:
                results += [] if result is None else [result]
        if on_error is not None:
            for error in errors:
                on_error(error)
        elif errors:
            for other in errors[1:]:
                errors[0].add_note(str(other))
            raise errors[0]
        return results

    def doctor(self) -> list[Broken]:
        """Load every installed plugin, let none act, and return those that cannot be used."""
        found = list(self._discovered.broken)
        for name in dict.fromkeys(entry.name for entry in self.available()):
            choices = self._choices(name)
            try:
                entry = self._only(name, choices)
                self._verify(self._loaded(entry), entry)
            except BrokenPlugin as error:
                found.append(Broken(choices[0], error))
        return found

    @cached_property
    def _discovered(self) -> Discovered:
        disabled = os.environ.get(f"{self.project.upper()}_DISABLE_PLUGINS", "")
        return discover({self.group: "hooks"}, disabled=disabled)

    def _new_manager(self) -> pluggy.PluginManager:
        manager = pluggy.PluginManager(self.project)
        manager.add_hookspecs(self.specs)
        return manager

    def _hooks(self) -> list[str]:
        return sorted(name for name in vars(self._manager.hook) if not name.startswith("_"))

    def _choices(self, name: str) -> list[Entry]:
        """Return the entries of one name, the malformed ones included; at least one."""
        entries = [*self.available(), *(broken.entry for broken in self._discovered.broken)]
        found = [entry for entry in entries if entry.name == name]
        if not found:
            raise UnknownComponent("hook plugin", name, installed={entry.name for entry in entries})
        return found

    def _only(self, name: str, choices: list[Entry]) -> Entry:
        """Return the one entry that can be used, or say why there is none."""
        usable = [entry for entry in choices if entry in self._discovered.entries]
        if len(usable) > 1:
            raise choices[0].broken(
                "published more than once",
                got=" and ".join(f"{entry.value} from {entry.source}" for entry in usable),
                remedy=f"uninstall or disable all but one: {self.project.upper()}_DISABLE_PLUGINS=…",
            )
        for broken in self._discovered.broken if not usable else ():
            if broken.entry.name == name:
                raise broken.error
        return usable[0]

    def _loaded(self, entry: Entry) -> object:
        began = time.perf_counter()
        plugin = load(entry, self.project)
        self.load_seconds[entry] = time.perf_counter() - began
        if not isinstance(plugin, type):
            return plugin
        try:
            made: object = plugin()
        except Exception as error:
            raise entry.broken(
                "it cannot be made without arguments",
                got=f"{type(error).__name__}: {error}",
                remedy=f"upgrade or uninstall {entry.distribution}, or tell its makers",
            ) from error
        return made

    def _act(self, plugin: object, entry: Entry) -> None:
        self._verify(plugin, entry)
        if self._manager.is_registered(plugin):
            raise entry.broken("its object is another plugin already", remedy="enable one of the two")
        self._manager.register(plugin, entry.name)
        self._entries[entry.name] = entry

    def _verify(self, plugin: object, entry: Entry) -> None:
        """Register the plugin where it harms nobody, and refuse what does not fit."""
        trial = self._new_manager()
        try:
            trial.register(plugin, entry.name)
            trial.check_pending()
        except Exception as error:
            said = str(error).splitlines()
            raise entry.broken(
                "its hook functions do not fit the hooks",
                expected=f"functions for {listed(self._hooks())}",
                got=" ".join(line for line in said if not line.startswith("Plugin ")) or type(error).__name__,
                remedy=f"it may be written for another version; upgrade or uninstall {entry.distribution}",
            ) from error
        callers = trial.get_hookcallers(plugin) or []
        if not callers:
            raise entry.broken(
                "it has no hook functions",
                expected=f"functions marked with pluggy.HookimplMarker({self.project!r})",
                remedy=f"mark them; tell the makers of {entry.source}",
            )
        for caller in callers:
            if any(implementation.wrapper or implementation.hookwrapper for implementation in caller.get_hookimpls()):
                raise entry.broken(f"its function {caller.name} wraps the others, which would undo their isolation")

    def _caller(self, hook: str, arguments: Mapping[str, object]) -> pluggy.HookCaller:
        caller: pluggy.HookCaller | None = getattr(self._manager.hook, hook, None)
        if caller is None or caller.spec is None:
            raise DiffloomError(f"there is no hook {hook!r}", expected=f"one of {listed(self._hooks())}")
        if set(caller.spec.argnames) != set(arguments):
            raise DiffloomError(
                "wrong arguments",
                where=f"hook {hook!r}",
                expected=", ".join(caller.spec.argnames) or "none",
                got=", ".join(arguments) or "none",
            )
        return caller

    def _raised(self, implementation: pluggy.HookImpl, hook: str, error: Exception) -> BrokenPlugin:
        entry = self._entries[implementation.plugin_name]
        broken = entry.broken(
            f"it failed in {hook}",
            got=f"{type(error).__name__}: {error}",
            remedy=f"leave {entry.name!r} out of the hooks"
            + (f", or tell the makers of {entry.source}" if entry.distribution else ""),
        )
        broken.__cause__ = error
        return broken
