"""Nothing that is public is undocumented: names, hooks, recipe keys, verbs, components."""

import importlib.util
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import diffloom
from diffloom.cli.app import app
from diffloom.engine import hooks
from diffloom.kinds import KINDS, registry
from diffloom.recipe.recipe import ROLES, Header, shipped

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOOKS = {name: value for name, value in vars(hooks).items() if name.startswith("diffloom_")}


@cache
def generator() -> ModuleType:
    """Return what makes the generated parts of the pages."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def page(name: str) -> str:
    """Return a page with its generated parts."""
    text: str = generator().filled((DOCS / name).read_text(encoding="utf-8"))
    return text


@pytest.mark.parametrize("name", diffloom.__all__)
def test_every_public_name_has_an_entry(name: str) -> None:
    text = page("reference/python.md")
    assert re.search(rf"^(::: diffloom\.([\w.]+\.)?{name}|### `diffloom\.{name}`)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", diffloom.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(diffloom, name))


def test_entries_name_what_there_is() -> None:
    for dotted in re.findall(r"^::: ([\w.]+)$", page("reference/python.md"), re.MULTILINE):
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name), dotted


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_its_signature_a_text_and_an_example(name: str) -> None:
    signature = ", ".join(inspect.signature(HOOKS[name]).parameters)
    text = page("hooks.md")
    found = re.search(rf"^### `{name}\({signature}\)` {{ #{name} }}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/hooks.md needs a heading ### `{name}({signature})`"
    assert "Called" in found[1]
    assert re.search(rf"```python\n.*@diffloom\.hook\n +def {name}\(", found[1], re.DOTALL)


def test_no_hook_is_documented_that_is_not_there() -> None:
    assert re.findall(r"^### `(\w+)\(", page("hooks.md"), re.MULTILINE) == list(HOOKS)


def test_every_recipe_key_has_an_entry_with_a_description() -> None:
    text = page("reference/recipe.md")
    for name, field in Header.model_fields.items():
        assert field.description, name
        assert f"| `{name}` |" in text, name
        inside = getattr(field.annotation, "model_fields", {})
        section = text.partition(f"\n## `{name}` ")[2].partition("\n## ")[0]
        for key, setting in inside.items():
            assert setting.description, f"{name}.{key}"
            assert f"| `{key}` |" in section, f"{name}.{key}"
    for role in (*ROLES, "conditioners.NAME"):
        assert f"| `{role}` |" in text, role
    for word in ("extends", "weights", "freeze", "lock"):
        assert f"`{word}" in text, word


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_key_that_all_components_of_a_kind_accept_is_described(kind: str) -> None:
    extras = registry.extras(kind)
    section = page("reference/components.md").partition(f"## {kind} {{")[2].partition("\n## ")[0]
    assert section
    for key, shown in (extras.properties if extras else {}).items():
        assert shown.get("description"), key
        assert f"| `{key}` |" in section, key


def test_every_component_that_comes_along_is_listed_with_a_summary() -> None:
    text = page("reference/components.md")
    for entry in registry.entries():
        if entry.distribution == "diffloom":
            anchor = re.sub(r"[^a-z0-9-]", "-", entry.name)
            assert f"### {entry.name} {{ #{entry.kind}-{anchor} }}" in text
            assert registry.component(entry.kind, entry.name).summary, entry.name


def test_every_verb_and_option_has_an_entry() -> None:
    text = page("reference/cli.md")
    for name, verb in get_command(app).commands.items():  # type: ignore[attr-defined]  # it is a group
        assert verb.help, name
        for sub in getattr(verb, "commands", {"": verb}):
            section = text.partition(f"## diffloom {f'{name} {sub}'.strip()} {{")[2].partition("\n## ")[0]
            assert section, name
            command = verb.commands[sub] if sub else verb
            for option in command.params:
                assert getattr(option, "help", None), f"{name} {option.name}"
                if option.param_type_name == "option":
                    assert f"`{option.opts[0]}`" in section, f"{name} {option.name}"


def test_every_shipped_recipe_is_in_the_gallery() -> None:
    for name, file in shipped().items():
        assert file.read_text(encoding="utf-8") in page("systems.md"), name


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for file in DOCS.rglob("*.md"):
        assert f": {file.relative_to(DOCS)}\n" in text, file


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    python = (tmp_path / "site/reference/python/index.html").read_text(encoding="utf-8")
    assert 'id="diffloom.schedule.Schedule.posterior"' in python
    assert "generated:" not in (tmp_path / "site/reference/recipe/index.html").read_text(encoding="utf-8")
