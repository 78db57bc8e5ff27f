"""Verbs that installed plugins add through the hook `diffloom_commands`.

Each plugin gets an application of its own to add to, so one that fails, or that takes a name which is taken, keeps
nobody from working. `--help` imports only those whose source speaks of the hook: it must stay instant.
"""

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.main import get_group

from diffloom_registry import DiffloomError, Entry

_HOOK = "diffloom_commands"


def verbs(taken: Iterable[str], tell: Callable[[str], None], *, every: bool) -> dict[str, Any]:
    """Return the verbs of the installed plugins, by name.

    Args:
        taken: Names that plugins cannot have.
        tell: Told of each plugin that cannot add what it wants to.
        every: Ask every plugin, rather than only those whose source names the hook.
    """
    from diffloom.engine import hooks as specs
    from diffloom_registry.hooks import Hooks
    from diffloom_registry.loading import mentions

    owners = dict.fromkeys(taken, "diffloom")
    found: dict[str, Any] = {}
    for entry in Hooks("diffloom", specs).available():
        if not (every or mentions(entry.value.partition(":")[0], _HOOK)):
            continue
        try:
            own = _asked(entry)
        except DiffloomError as error:
            tell(f"no verbs from a plugin: {error}")
            continue
        for name, command in own.items():
            if name in owners:
                tell(f"{entry.where}: its verb {name!r} is left out, for {owners[name]} has one of that name")
                continue
            owners[name] = entry.source
            found[name] = command
    return found


def _asked(entry: Entry) -> dict[str, Any]:
    """Return the verbs that one plugin adds."""
    from diffloom.engine import hooks as specs
    from diffloom_registry.hooks import Hooks

    hooks, app = Hooks("diffloom", specs), typer.Typer(rich_markup_mode=None, add_completion=False)
    for broken in hooks.enable([entry.name]):
        raise broken.error
    hooks.call(_HOOK, app=app)
    if not (app.registered_commands or app.registered_groups):
        return {}
    return dict(get_group(app).commands)
