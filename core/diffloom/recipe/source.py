"""Source: YAML files, what they extend, overlays and `--set`, merged into a tree that knows where each value stood.

Merging is deep. A component whose `type` changes is replaced whole, since the old type's parameters mean nothing to the
new one; `null` over a mapping takes it away. YAML is 1.2, read without constructing anything but plain data.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from diffloom.errors import RecipeError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Mark:
    """A place in a file, line and column counted from 1; a setting from the command line has neither."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


@dataclass
class Source:
    """A merged recipe: plain data, and the mark of every key and list item."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def mark(self, path: KeyPath) -> Mark | None:
        """Return the mark of the nearest place that the recipe has for `path`."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.marks:
                return self.marks[path[:length]]
        return None

    def merge(self, other: "Source") -> None:
        """Lay `other` over this source."""
        self.data = cast(dict[str, Any], self._merge(self.data, other.data, (), other))
        if () in other.marks:
            self.marks[()] = other.marks[()]

    def _merge(self, below: Any, above: Any, path: KeyPath, other: "Source") -> Any:
        if not _mergeable(below, above):
            self._forget(path)
            self.marks.update({p: m for p, m in other.marks.items() if p[: len(path)] == path})
            return above
        merged = dict(below)
        for key, value in above.items():
            here = (*path, key)
            if value is None and isinstance(merged.get(key), Mapping):
                merged.pop(key, None)
                self._forget(here)
            else:
                merged[key] = self._merge(merged.get(key), value, here, other)
                if here in other.marks:
                    self.marks[here] = other.marks[here]
        return merged

    def _forget(self, path: KeyPath) -> None:
        for known in [p for p in self.marks if len(p) > 0 and p[: len(path)] == path]:
            del self.marks[known]


def _mergeable(below: Any, above: Any) -> bool:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return False
    return "type" not in above or "type" not in below or above["type"] == below["type"]


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data merged as files are; neither is changed."""
    merged = Source(dict(below))
    merged.merge(Source(dict(above)))
    return merged.data


def read(path: Path) -> Source:
    """Return a recipe file merged over everything it `extends`."""
    return _read(path, ())


def _read(path: Path, chain: tuple[Path, ...]) -> Source:
    resolved = path.resolve()
    if resolved in chain:
        loop = " → ".join(p.name for p in (*chain, resolved))
        raise RecipeError("recipes extend each other in a circle", where=str(path), got=loop)
    own = parse(_text(path, chain), str(path))
    bases = own.data.pop("extends", None)
    own.marks = {p: m for p, m in own.marks.items() if p[:1] != ("extends",)}
    merged = Source()
    for base in [bases] if isinstance(bases, str) else bases or []:
        if not isinstance(base, str):
            raise RecipeError("a base is not a file name", where=f"{path}: extends", got=repr(base))
        merged.merge(_read(path.parent / base, (*chain, resolved)))
    merged.merge(own)
    return merged


def _text(path: Path, chain: tuple[Path, ...]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        where = f"extends in {chain[-1]}" if chain else None
        raise RecipeError(f"the recipe {path} cannot be read: {reason}", where=where) from error


def parse(text: str, name: str) -> Source:
    """Return the source of one YAML text; `name` stands in its marks. Raises RecipeError with file:line:column."""
    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(StringIO(text))
    except DuplicateKeyError as error:
        raise RecipeError("a key stands twice", where=_where(error, name), got=_first(error)) from error
    except MarkedYAMLError as error:
        raise RecipeError(f"this is not YAML: {_first(error)}", where=_where(error, name)) from error
    source = Source()
    if tree is None:
        return source
    if not isinstance(tree, CommentedMap):
        raise RecipeError("a recipe is a mapping of keys", where=f"{name}:1:1", got=type(tree).__name__)
    source.marks[()] = Mark(name, 1, 1)
    source.data = cast(dict[str, Any], _plain(tree, (), source.marks, name))
    return source


def _plain(node: Any, path: KeyPath, marks: dict[KeyPath, Mark], name: str) -> Any:
    if isinstance(node, TaggedScalar) or (getattr(node, "tag", None) is not None and str(node.tag.value or "")):
        mark = marks.get(path)
        raise RecipeError(
            "a recipe has no YAML tags", where=str(mark), got=str(node.tag.value), remedy="leave the tag out"
        )
    if isinstance(node, CommentedMap):
        for key in node:
            if not isinstance(key, str):
                line, column = node.lc.key(key)
                raise RecipeError("a key is not text", where=f"{name}:{line + 1}:{column + 1}", got=repr(key))
        keys = [(key, node.lc.key(key), value) for key, value in node.items()]
        return {key: _leaf(value, (*path, key), place, marks, name) for key, place, value in keys}
    if isinstance(node, CommentedSeq):
        return [_leaf(value, (*path, i), node.lc.item(i), marks, name) for i, value in enumerate(node)]
    return _scalar(node)


def _leaf(value: Any, path: KeyPath, place: tuple[int, int], marks: dict[KeyPath, Mark], name: str) -> Any:
    marks[path] = Mark(name, place[0] + 1, place[1] + 1)
    return _plain(value, path, marks, name)


def _scalar(value: Any) -> Any:
    """Return the plain value of a round-trip scalar, which is a subclass that carries its spelling."""
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def setting(text: str) -> Source:
    """Return the source of one `--set path.to.key=value`; the value is read as YAML."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise RecipeError("a setting is not of the form key.path=value", where="--set", got=repr(text))
    try:
        leaf = YAML(typ="rt", pure=True).load(StringIO(value))
    except MarkedYAMLError as error:
        raise RecipeError(f"the value is not YAML: {_first(error)}", where=f"--set {text}") from error
    return override(keys, leaf, f"--set {path}")


def override(keys: Iterable[str], value: Any, name: str) -> Source:
    """Return the source of one value at a path of keys; `name` stands in its marks."""
    path: KeyPath = tuple(keys)
    marks: dict[KeyPath, Mark] = {path: Mark(name)}
    data = _plain(value, path, {}, name) if isinstance(value, CommentedMap | CommentedSeq) else value
    for key in reversed(path):
        data = {key: data}
    return Source(data, marks)


def _first(error: MarkedYAMLError) -> str:
    return str(error.problem or error.context or error).strip().splitlines()[0]


def _where(error: MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name


def walk(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every path and value of a tree, parents first."""
    yield path, data
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from walk(value, (*path, key))
