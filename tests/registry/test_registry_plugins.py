"""Installed plugins, good and broken: whatever one does, the others work and the error tells who it was."""

import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest

from diffloom_registry import BrokenPlugin, ConfigError, DiffloomError, Kind, Registry, UnknownComponent

Install = Callable[..., Path]


class Sampler(ABC):
    @abstractmethod
    def step(self) -> int: ...


class Schedule(ABC):
    @abstractmethod
    def table(self) -> int: ...


class Fine(Sampler):
    def __init__(self, *, steps: int = 1) -> None:
        self.steps = steps

    def step(self) -> int:
        return self.steps


class Other(Fine):
    pass


KINDS = (
    Kind("sampler", f"{__name__}:Sampler", "walks"),
    Kind("schedule", f"{__name__}:Schedule", "levels"),
)
GOOD = f"""
from {__name__} import Sampler

class Good(Sampler):
    def __init__(self, *, steps: int = 5) -> None:
        self.steps = steps
    def step(self) -> int:
        return self.steps
"""


def registry() -> Registry:
    return Registry(KINDS, prefix="loomtest")


def component(constructor: str, head: str = "") -> str:
    return (
        f"{head}\nfrom {__name__} import Sampler\n"
        f"class Bad(Sampler):\n    def __init__({constructor}) -> None: ...\n"
        "    def step(self) -> int: return 1\n"
    )


def test_listing_imports_nothing(install: Install) -> None:
    install("acme", "[loomtest.sampler]\nbomb = acme_bomb:Bomb\n", acme_bomb="raise RuntimeError('imported')")
    found = registry()
    assert found.names("sampler") == ["bomb"]
    (entry,) = found.entries()
    assert (entry.kind, entry.name, entry.value) == ("sampler", "bomb", "acme_bomb:Bomb")
    assert (entry.distribution, entry.version) == ("acme", "1.0")
    assert "acme_bomb" not in sys.modules


def test_a_component_is_loaded_and_its_import_timed(install: Install) -> None:
    install("acme", "[loomtest.sampler]\ngood = acme_good:Good\n", acme_good=GOOD)
    found = registry()
    assert found.get("sampler", "good").__name__ == "Good"
    assert found.get("sampler", "acme/good") is found.get("sampler", "good")
    assert list(found.load_seconds) == found.entries("sampler")
    assert found.broken() == []


MODULES = {
    "import error": ("raise RuntimeError('no luck')", "it cannot be imported", "RuntimeError: no luck"),
    "system exit": ("raise SystemExit(3)", "it cannot be imported", "SystemExit: 3"),
    "syntax error": ("def broken(:", "it cannot be imported", "SyntaxError"),
    "missing dependency": ("import nowhere_at_all", "install nowhere_at_all, or uninstall acme-bad", None),
    "missing attribute": ("Bed = 1", "has no attribute 'Bad', only Bed", "AttributeError"),
    "no class": ("def Bad(): ...", "it is no class: expected a subclass of Sampler, got function", None),
    "wrong base": (
        "class Bad: ...",
        "it has the wrong base class: expected a subclass of",
        "got Bad(object)",
    ),
    "abstract left": (
        f"from {__name__} import Sampler\nclass Bad(Sampler): ...",
        "abstract methods are left: got step; implement them",
        None,
    ),
    "unannotated": (component("self, *, x=1"), "parameter 'x' of its constructor has no annotation", None),
    "positional": (
        component("self, x: int = 1"),
        "parameter 'x' of its constructor is positional: expected keyword-only parameters; put a '*' before",
        None,
    ),
    "keywords": (component("self, **rest: int"), "its constructor takes **rest, whose keys no recipe", None),
    "arguments": (component("self, *rest: int"), "its constructor takes *rest, whose keys no recipe", None),
    "type": (component("self, *, type: int"), "parameter 'type' of its constructor has the name of", None),
    "wrong default": (
        component("self, *, x: int = 'a'"),
        "the default of parameter 'x' of its constructor is wrong: expected an integer, got 'a'",
        None,
    ),
    "text for a number": (
        component("self, *, x: int = '5'"),
        "the default of parameter 'x' of its constructor is wrong: expected an integer, got '5'",
        None,
    ),
    "inexpressible": (
        component("self, *, x: list[Fraction | None]", "class Fraction: ..."),
        "parameter 'x' of its constructor cannot be given by a recipe: expected text, numbers,",
        "got list[Fraction | None]",
    ),
    "callable": (
        component("self, *, x: Callable[[int], str]", "from collections.abc import Callable"),
        "parameter 'x' of its constructor cannot be given by a recipe: expected text, numbers,",
        "got Callable[[int], str]",
    ),
    "unresolved": (
        component("self, *, x: 'Tensor'"),
        "annotations of its constructor cannot be resolved: got NameError: name 'Tensor' is not defined",
        "not under TYPE_CHECKING",
    ),
    "default in field": (
        component(
            "self, *, x: Annotated[int, Field(default=3)]",
            "from pydantic import Field\nfrom typing import Annotated",
        ),
        "parameter 'x' of its constructor has its default inside Field; write x: … = default",
        None,
    ),
    "subclass of an interface": (
        component("self, *, x: Fine", f"from {__name__} import Fine"),
        "parameter 'x' of its constructor cannot be given by a recipe: expected Sampler, Sampler | None,",
        "got Fine",
    ),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_broken_plugin_is_named_and_harms_no_other(case: str, install: Install) -> None:
    source, said, also = MODULES[case]
    install("acme-bad", "[loomtest.sampler]\nbad = acme_bad:Bad\n", version="2.1", acme_bad=source)
    install("acme", "[loomtest.sampler]\ngood = acme_good:Good\n", acme_good=GOOD)
    found = registry()
    with pytest.raises(BrokenPlugin) as caught:
        found.get("sampler", "bad")
    error = caught.value
    assert str(error).startswith("sampler 'bad' from acme-bad 2.1 (acme_bad:Bad): ")
    assert said in str(error)
    assert (also or "") in str(error)
    assert "\n" not in str(error)
    assert (error.distribution, error.version, error.value) == ("acme-bad", "2.1", "acme_bad:Bad")
    assert found.get("sampler", "good").__name__ == "Good"
    (broken,) = found.broken()
    assert broken.entry.name == "bad"
    assert str(broken.error) == str(error)
    (choice,) = found.schema()["$defs"]["sampler"]["oneOf"]
    assert choice["properties"]["type"] == {"const": "good"}


def test_the_cause_is_chained(install: Install) -> None:
    install("acme", "[loomtest.sampler]\nbad = acme_bad:Bad\n", acme_bad="raise RuntimeError('no luck')")
    with pytest.raises(BrokenPlugin) as caught:
        registry().get("sampler", "bad")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_recipe_that_asks_for_a_broken_plugin_is_told_with_the_cause(install: Install) -> None:
    install("acme", "[loomtest.sampler]\nbad = acme_bad:Bad\n", acme_bad="raise RuntimeError('no luck')")
    with pytest.raises(ConfigError) as caught:
        registry().validate("sampler", {"type": "bad"}, path=("sampler",))
    assert str(caught.value) == (
        "sampler.type: sampler 'bad' from acme 1.0 (acme_bad:Bad): it cannot be imported: "
        "got RuntimeError: no luck; upgrade or uninstall acme, or tell its makers"
    )
    assert isinstance(caught.value.__cause__, BrokenPlugin)


def test_a_module_that_is_not_there(install: Install) -> None:
    install("acme", "[loomtest.sampler]\nbad = acme_gone.deep:Bad\n")
    with pytest.raises(BrokenPlugin, match="reinstall acme: its entry point names a module that is not there"):
        registry().get("sampler", "bad")


def test_a_repaired_plugin_loads_at_the_next_try(install: Install) -> None:
    folder = install("acme", "[loomtest.sampler]\ngood = acme_late:Good\n", acme_late="import acme_needed\n" + GOOD)
    found = registry()
    with pytest.raises(BrokenPlugin, match="install acme_needed"):
        found.get("sampler", "good")
    before = folder.stat()
    (folder / "acme_needed.py").write_text("")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if within one tick of the clock
    assert found.get("sampler", "good").__name__ == "Good"


def test_a_clash_names_both_and_can_be_decided(install: Install) -> None:
    install("acme", "[loomtest.sampler]\ngood = acme_one:Good\n", acme_one=GOOD)
    install("Bolt_Works", "[loomtest.sampler]\ngood = bolt_two:Good\n", version="3", bolt_two=GOOD)
    found = registry()
    assert found.names("sampler") == ["good"]
    assert [entry.distribution for entry in found.entries("sampler")] == ["Bolt_Works", "acme"]
    with pytest.raises(BrokenPlugin) as caught:
        found.get("sampler", "good")
    assert str(caught.value) == (
        "sampler 'good': published more than once: got bolt_two:Good from Bolt_Works 3 and acme_one:Good "
        "from acme 1.0; choose 'Bolt_Works/good' or 'acme/good'"
    )
    assert found.get("sampler", "bolt-works/good").__module__ == "bolt_two"
    assert found.get("sampler", "acme/good").__module__ == "acme_one"
    (broken,) = found.broken()
    assert str(broken.error) == str(caught.value)
    constants = [one["properties"]["type"]["const"] for one in found.schema()["$defs"]["sampler"]["oneOf"]]
    assert constants == ["Bolt_Works/good", "acme/good"]
    config = found.validate("sampler", {"type": "acme/good"})
    assert config.resolved() == {"type": "acme/good", "steps": 5}
    with pytest.raises(UnknownComponent, match="one of Bolt_Works/good, acme/good"):
        found.get("sampler", "nobody/good")


def test_two_copies_of_one_distribution_count_once(install: Install) -> None:
    install("acme", "[loomtest.sampler]\nold = acme_old:Good\ngood = acme_old:Good\n", version="1", acme_old=GOOD)
    install("Acme", "[loomtest.sampler]\ngood = acme_new:Good\n", version="2", acme_new=GOOD)
    (entry,) = registry().entries()
    assert (entry.value, entry.version) == ("acme_new:Good", "2")


def test_one_distribution_with_one_name_twice(install: Install) -> None:
    install("acme", "[loomtest.sampler]\ngood = a:A\ngood = a:B\nsame = a:C\nsame = a:C\n")
    found = registry()
    with pytest.raises(BrokenPlugin, match=r"published more than once.*correct the entry points of acme"):
        found.get("sampler", "good")
    assert [entry.name for entry in found.entries()] == ["good", "good", "same"]


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("just words", "just words", "malformed entry point: expected a name of letters"),
        ("bad", "bad", "malformed entry point: expected name = package.module:Class, got 'bad'"),
        ("bad =", "bad", "malformed entry point: expected name = package.module:Class, got 'bad'"),
        ("bad = a b:C", "bad", "got 'bad = a b:C'"),
        ("bad = a:b:C", "bad", "got 'bad = a:b:C'"),
        ("a/b = a:C", "a/b", "got 'a/b'"),
    ],
)
def test_a_malformed_entry_point_is_quarantined(line: str, name: str, said: str, install: Install) -> None:
    install("acme-bad", f"[loomtest.sampler]\n{line}\nfine = {__name__}:Fine\n")
    found = registry()
    assert found.names("sampler") == ["fine"]
    assert found.get("sampler", "fine") is Fine
    (broken,) = found.broken()
    assert broken.entry.name == name
    assert said in str(broken.error)
    if "/" not in name:
        with pytest.raises(BrokenPlugin, match="malformed entry point"):
            found.get("sampler", name)


def test_a_misspelt_group_is_reported(install: Install) -> None:
    install("acme", f"[loomtest.samplers]\ngood = {__name__}:Fine\n[loomtest.hooks]\nbar = a\n[else]\nx = y\n")
    (broken,) = registry().broken()
    assert "unknown group 'loomtest.samplers'; did you mean 'loomtest.sampler'?" in str(broken.error)


def test_a_distribution_can_be_disabled(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("Acme_Bad", "[loomtest.sampler]\nbad = acme_bad:Bad\n")
    install("acme", f"[loomtest.sampler]\ngood = {__name__}:Fine\n")
    monkeypatch.setenv("LOOMTEST_DISABLE_PLUGINS", "other, acme-bad")
    assert registry().names("sampler") == ["good"]


def test_extras_and_comments_in_entry_points_are_read(install: Install) -> None:
    install("acme", f"# said\n\n[loomtest.sampler]\n; more\ngood = {__name__}:Fine [fast, big]\n")
    assert registry().get("sampler", "good") is Fine


def test_a_file_that_is_no_text_publishes_nothing(install: Install) -> None:
    folder = install("acme", "[loomtest.sampler]\n")
    next(folder.glob("*.dist-info/entry_points.txt")).write_bytes(b"[loomtest.sampler]\n\xff\xfe = a:b")
    assert registry().entries() == []


def test_unknown_names_tell_what_there_is(install: Install) -> None:
    install("acme", f"[loomtest.sampler]\nddim = {__name__}:Fine\nddpm = {__name__}:Fine\n")
    found = registry()
    with pytest.raises(UnknownComponent) as caught:
        found.get("sampler", "DDPN")
    assert str(caught.value) == ("there is no sampler named 'DDPN': expected one of ddim, ddpm; did you mean 'ddpm'?")
    assert caught.value.nearest == ["ddpm"]
    with pytest.raises(UnknownComponent) as caught:
        found.get("schedule", "ddim")
    assert str(caught.value) == (
        "there is no schedule named 'ddim': got no schedule at all is installed; 'ddim' is a sampler"
    )
    with pytest.raises(UnknownComponent, match="install a package that provides the sampler 'heun'"):
        found.get("sampler", "heun")
    with pytest.raises(DiffloomError) as failed:
        found.names("samplr")
    assert str(failed.value) == (
        "there is no kind of component named 'samplr': expected one of sampler, schedule; did you mean 'sampler'?"
    )


def test_an_override_acts_at_once_and_comes_off_again(install: Install) -> None:
    install("acme", f"[loomtest.sampler]\ngood = {__name__}:Fine\n")
    found = registry()
    before = found.entries()
    with found.add("sampler", "good", Other), found.add("sampler", "new", Other):
        assert found.get("sampler", "good") is Other
        assert found.get("sampler", "acme/good") is Fine
        assert found.names("sampler") == ["good", "new"]
        assert found.entries()[0].distribution is None
    assert found.entries() == before
    assert found.get("sampler", "good") is Fine
    with pytest.raises(UnknownComponent):
        found.get("sampler", "new")


def test_overrides_come_off_in_any_order() -> None:
    found = registry()
    first, second = found.add("sampler", "x", Fine), found.add("sampler", "x", Other)
    assert found.get("sampler", "x") is Other
    first.close()
    assert found.get("sampler", "x") is Other
    first.close()
    again = found.add("sampler", "x", Other)
    second.close()
    assert found.get("sampler", "x") is Other
    again.close()
    assert found.names("sampler") == []


def test_an_override_is_verified_first() -> None:
    found = registry()
    with pytest.raises(BrokenPlugin, match=r"sampler 'x' from this process .*abstract methods are left"):
        found.add("sampler", "x", Sampler)
    with pytest.raises(BrokenPlugin, match=r"cannot have this name: .*got 'a/b'"):
        found.add("sampler", "a/b", Fine)
    assert found.entries() == []


def test_an_interface_that_cannot_be_imported() -> None:
    found = Registry([Kind("sampler", "nowhere_at_all:Sampler", "walks")], prefix="loomtest")
    with pytest.raises(DiffloomError, match="kind 'sampler': nowhere_at_all:Sampler cannot be imported: got Mod"):
        found.add("sampler", "x", Fine)


def test_two_hundred_entries_are_listed_in_milliseconds(install: Install) -> None:
    lines = "\n".join(f"part{number} = acme:Part{number}" for number in range(200))
    install("acme", f"[loomtest.sampler]\n{lines}\n")
    found = registry()
    assert len(found.names("sampler")) == 200
    began = time.perf_counter()
    found.entries()
    assert time.perf_counter() - began < 0.05


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, diffloom_registry, diffloom_registry.hooks; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
