"""Hook plugins: none acts unasked, and one that fails is named and stops no other."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pluggy
import pytest

from diffloom_registry import BrokenPlugin, DiffloomError, UnknownComponent
from diffloom_registry.hooks import Hooks

Install = Callable[..., Path]

spec = pluggy.HookspecMarker("loomtest")
impl = pluggy.HookimplMarker("loomtest")

HEAD = "import pluggy\nimpl = pluggy.HookimplMarker('loomtest')\n"
GOOD = HEAD + "@impl\ndef loom_step(step): return step + 1\n"


class Specs:
    @spec
    def loom_step(self, step: int, loss: float) -> object:
        """A step was made."""

    @spec
    def loom_end(self) -> object:
        """It ended."""


class Twice:
    @impl
    def loom_step(self, step: int) -> int:
        return 2 * step


class Silent:
    @impl
    def loom_step(self) -> None:
        return None


class Raises:
    @impl
    def loom_step(self, step: int) -> int:
        raise KeyError(f"no {step}")


def hooks() -> Hooks:
    return Hooks("loomtest", Specs)


def test_nothing_acts_or_is_imported_unasked(install: Install) -> None:
    install("acme", "[loomtest.hooks]\nbar = acme_hooks\n", acme_hooks=GOOD)
    found = hooks()
    assert [entry.name for entry in found.available()] == ["bar"]
    assert found.call("loom_step", step=1, loss=0.5) == []
    assert "acme_hooks" not in sys.modules


def test_enabled_plugins_act_the_last_one_first(install: Install) -> None:
    install(
        "acme",
        "[loomtest.hooks]\nbar = acme_hooks\nbaz = acme_more:Plugin\n",
        acme_hooks=GOOD,
        acme_more=HEAD + "class Plugin:\n    @impl\n    def loom_step(self, loss): return loss\n",
    )
    found = hooks()
    assert found.enable(["bar", "baz", "bar"]) == []
    assert found.enable(["bar"]) == []
    assert found.enabled() == ["bar", "baz"]
    assert found.call("loom_step", step=1, loss=0.5) == [0.5, 2]
    assert found.call("loom_end") == []
    assert [entry.name for entry in found.load_seconds] == ["bar", "baz"]


def test_an_unknown_plugin_changes_nothing(install: Install) -> None:
    install("acme", "[loomtest.hooks]\nbar = acme_hooks\n", acme_hooks=GOOD)
    found = hooks()
    with pytest.raises(UnknownComponent) as caught:
        found.enable(["bar", "baar"])
    assert str(caught.value) == ("there is no hook plugin named 'baar': expected one of bar; did you mean 'bar'?")
    assert found.enabled() == []


@pytest.mark.parametrize(
    ("value", "source", "said"),
    [
        ("acme_bad", "raise RuntimeError('no luck')", "it cannot be imported: got RuntimeError: no luck"),
        ("acme_bad", "import nowhere_at_all", "install nowhere_at_all, or uninstall acme-bad"),
        ("acme_bad:Gone", "", "has no attribute 'Gone'"),
        (
            "acme_bad",
            "",
            "it has no hook functions: expected functions marked with pluggy.HookimplMarker('loomtest')",
        ),
        (
            "acme_bad",
            HEAD + "@impl\ndef loom_stop(): ...\n",
            "its hook functions do not fit the hooks: expected functions for loom_end, loom_step, got "
            "unknown hook 'loom_stop' in plugin",
        ),
        ("acme_bad", HEAD + "@impl\ndef loom_step(stepp): ...\n", "loom_step(stepp)"),
        (
            "acme_bad",
            HEAD + "@impl(wrapper=True)\ndef loom_step(): return (yield)\n",
            "its function loom_step wraps the others, which would undo their isolation",
        ),
        (
            "acme_bad:Plugin",
            "class Plugin:\n    def __init__(self, x): ...\n",
            "it cannot be made without arguments: got TypeError",
        ),
        ("acme bad", "", "malformed entry point: expected name = package.module:Class, got 'bad = acme bad'"),
        ("acme_hooks", "", "its object is another plugin already; enable one of the two"),
    ],
)
def test_a_broken_plugin_is_quarantined(value: str, source: str, said: str, install: Install) -> None:
    install("acme-bad", f"[loomtest.hooks]\nbad = {value}\n", version="2.1", acme_bad=source)
    install("acme", "[loomtest.hooks]\nbar = acme_hooks\n", acme_hooks=GOOD)
    found = hooks()
    (broken,) = found.enable(["bar", "bad"])
    assert str(broken.error).startswith(f"hooks 'bad' from acme-bad 2.1 ({value}): ")
    assert said in str(broken.error)
    assert "\n" not in str(broken.error)
    assert isinstance(broken.error, BrokenPlugin)
    assert broken.error.distribution == "acme-bad"
    assert found.quarantined == [broken]
    assert found.enabled() == ["bar"]
    assert found.call("loom_step", step=1, loss=0.5) == [2]
    if value != "acme_hooks":
        assert [str(one.error) for one in found.doctor()] == [str(broken.error)]
    assert found.enabled() == ["bar"]


def test_two_distributions_with_one_name(install: Install) -> None:
    install("acme", "[loomtest.hooks]\nbar = acme_hooks\n", acme_hooks=GOOD)
    install("bolt", "[loomtest.hooks]\nbar = bolt_hooks\n", bolt_hooks=GOOD)
    found = hooks()
    (broken,) = found.enable(["bar"])
    assert "published more than once: got acme_hooks from acme 1.0 and bolt_hooks from bolt 1.0" in str(broken.error)
    assert "LOOMTEST_DISABLE_PLUGINS" in str(broken.error)
    assert [str(one.error) for one in found.doctor()] == [str(broken.error)]


def test_a_disabled_distribution_is_left_alone(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", "[loomtest.hooks]\nbar = acme_hooks\n", acme_hooks=GOOD)
    monkeypatch.setitem(os.environ, "LOOMTEST_DISABLE_PLUGINS", "ACME")
    assert hooks().available() == []


def test_a_plugin_that_raises_stops_no_other() -> None:
    found = hooks()
    for name, plugin in {"first": Twice(), "bad": Raises(), "worse": Raises(), "last": Silent()}.items():
        found.register(plugin, name)
    errors: list[BrokenPlugin] = []
    assert found.call("loom_step", on_error=errors.append, step=4, loss=0.0) == [8]
    assert [str(error) for error in errors] == [
        f"hooks '{name}' from this process (Raises): it failed in loom_step: got KeyError: 'no 4'; "
        f"leave {name!r} out of the hooks"
        for name in ("worse", "bad")
    ]
    assert all(isinstance(error.__cause__, KeyError) for error in errors)
    with pytest.raises(BrokenPlugin, match="hooks 'worse'") as caught:
        found.call("loom_step", step=4, loss=0.0)
    assert caught.value.__notes__ == [str(errors[1])]


def test_an_interrupt_is_no_failure() -> None:
    class Stops:
        @impl
        def loom_end(self) -> None:
            raise KeyboardInterrupt

    found = hooks()
    found.register(Stops(), "stops")
    with pytest.raises(KeyboardInterrupt):
        found.call("loom_end", on_error=lambda error: None)


def test_a_registered_plugin_comes_off_again() -> None:
    found, plugin = hooks(), Twice()
    with found.register(plugin, "twice"):
        assert found.call("loom_step", step=4, loss=0.0) == [8]
        with pytest.raises(DiffloomError, match="hook plugin 'twice': registered already; close the first one"):
            found.register(Twice(), "twice")
        with pytest.raises(DiffloomError, match="registered already"):
            found.register(plugin, "again")
    assert found.call("loom_step", step=4, loss=0.0) == []
    assert found.enabled() == []
    with pytest.raises(BrokenPlugin, match="has no hook functions"):
        found.register(object(), "empty")


def test_calls_are_checked() -> None:
    found = hooks()
    with pytest.raises(DiffloomError, match="there is no hook 'loom_stop': expected one of loom_end, loom_step"):
        found.call("loom_stop")
    with pytest.raises(DiffloomError, match="hook 'loom_step': wrong arguments: expected step, loss, got step"):
        found.call("loom_step", step=1)
