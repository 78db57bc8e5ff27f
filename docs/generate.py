"""What the pages say that is made from the code: recipe keys, components, verbs and shipped recipes.

mkdocs calls `on_page_markdown` for each page; a line `<!-- generated: NAME -->` is replaced by what NAME makes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from diffloom.kinds import KINDS, registry
from diffloom_registry import MISSING, Parameter

_MARK = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its generated parts filled in."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """Return Markdown with every generated part in the place of its mark."""
    return _MARK.sub(lambda mark: MAKERS[mark[1]](), markdown)


def recipe_keys() -> str:
    """Return the keys of a recipe that are no components, as tables."""
    from diffloom.recipe.recipe import Header

    parts = ["## Keys of a recipe\n", _keys(Header)]
    for name, field in Header.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts += [f"\n## `{name}` {{ #{name} }}\n", f"{field.description}\n", _keys(field.annotation)]
    return "\n".join(parts)


def roles() -> str:
    """Return the roles of a recipe and their kinds, as a table."""
    from diffloom.recipe.recipe import ROLES

    found = [*ROLES.items(), ("conditioners.NAME", "conditioner"), ("eval.metrics[]", "metric")]
    found += [("eval.samplers.NAME", "sampler"), ("data.transforms[]", "transform")]
    summaries = {kind.name: kind.summary for kind in KINDS}
    rows = [(f"`{role}`", f"[{kind}](components.md#{kind})", summaries[kind]) for role, kind in found]
    return _table(("key", "kind", "what it is"), rows)


def components() -> str:
    """Return every component that diffloom brings, with its parameters."""
    parts = []
    for kind in KINDS:
        parts.append(f"## {kind.name} {{ #{kind.name} }}\n\n{_sentence(kind.summary)}\n")
        shared = registry.extras(kind.name)
        if shared is not None:
            parts.append(f"Keys that every {kind.name} accepts:\n\n{_keys(shared.model)}\n")
        for entry in registry.entries(kind.name):
            if entry.distribution == "diffloom":
                parts.append(_component(kind.name, entry.name))
    return "\n".join(parts)


def verbs() -> str:
    """Return the help of every verb of the command line."""
    from typer.main import get_command

    from diffloom.cli.app import app

    command: Any = get_command(app)
    return "\n".join(_verb(name, verb) for name, verb in command.commands.items())


def shipped() -> str:
    """Return the recipes that come with diffloom, as a table and as text."""
    from diffloom.recipe.recipe import shipped as files
    from diffloom.recipe.source import read

    parts = [
        _table(
            ("recipe", "what it is"),
            [(f"[`{name}`](#{name})", str(read(file).data.get("description", ""))) for name, file in files().items()],
        )
    ]
    for name, file in files().items():
        text = file.read_text(encoding="utf-8")
        parts.append(f"\n## {name} {{ #{name} }}\n\n```yaml\n{text}```\n")
    return "\n".join(parts)


MAKERS: dict[str, Callable[[], str]] = {
    "recipe-keys": recipe_keys,
    "roles": roles,
    "components": components,
    "verbs": verbs,
    "shipped": shipped,
}
"""Name of a generated part → what makes it."""


def _component(kind: str, name: str) -> str:
    parameters = [parameter for parameter in registry.parameters(kind, name) if not parameter.common]
    summary = registry.component(kind, name).summary
    table = _table(("key", "type", "default", "what it is"), [_row(parameter) for parameter in parameters])
    return (
        f"### {name} {{ #{kind}-{re.sub(r'[^a-z0-9-]', '-', name)} }}\n\n{summary}\n\n{table if parameters else ''}\n"
    )


def _row(parameter: Parameter) -> tuple[str, ...]:
    if parameter.role == "injected":
        default = "the system's"
    else:
        default = "required" if parameter.default is MISSING else _value(parameter.default)
    shown = f"`{parameter.annotation}`" + (f", `{parameter.bounds}`" if parameter.bounds else "")
    return f"`{parameter.name}`", shown, default, parameter.description


def _keys(model: type[BaseModel]) -> str:
    from diffloom_registry.fields import Fields
    from diffloom_registry.parameters import common

    return _table(("key", "type", "default", "what it is"), [_row(parameter) for parameter in common(Fields(model))])


def _value(value: object) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    plain = to_jsonable_python(value, fallback=str)
    return f"`{'null' if plain is None else str(plain).lower() if isinstance(plain, bool) else plain}`"


def _verb(name: str, verb: Any) -> str:
    inside = getattr(verb, "commands", None)
    if inside:
        return "\n".join(_verb(f"{name} {sub}", command) for sub, command in inside.items())
    text = str(verb.help or "")
    paragraphs = []
    for paragraph in text.replace("\b\n", "\b").split("\n\n"):
        if paragraph.startswith("\b"):
            head, *lines = paragraph.lstrip("\b").splitlines()
            paragraphs.append(f"{head}\n\n```text\n" + "\n".join(line.strip() for line in lines) + "\n```")
        else:
            paragraphs.append(paragraph)
    rows = []
    for option in verb.params:
        if option.param_type_name == "argument":
            rows.append((f"`{option.metavar or str(option.name).upper()}`", option.help or ""))
        else:
            rows.append((", ".join(f"`{word}`" for word in option.opts), option.help or ""))
    body = "\n\n".join(paragraphs)
    return (
        f"## diffloom {name} {{ #{name.replace(' ', '-')} }}\n\n{body}\n\n{_table(('argument', 'what it is'), rows)}\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


if __name__ == "__main__":
    for page in sorted(Path(__file__).parent.rglob("*.md")):
        filled(page.read_text(encoding="utf-8"))
