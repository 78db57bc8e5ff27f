"""Every Python block of README and docs runs, and so do recipes and cheap commands, in the order of their page."""

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from diffloom.cli import main
from diffloom.recipe.recipe import shipped

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHEAP = ("check", "list", "new-plugin", "plot", "schema", "show")
_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = {"geotiff.md": "rasterio"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        page: The page's file.
        line: Where its text begins.
        language: After the fence; empty where there is none.
        title: The file that it is shown as, or nothing.
        text: What it says.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    whole = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(whole):
        line = whole.count("\n", 0, found.start(3)) + 1
        yield Block(page, line, found[1], found[2] or "", found[3])


def run_python(block: Block, space: dict[str, object]) -> None:
    """Run a block; errors show the page and line."""
    tree = ast.parse(block.text, str(block.page))
    ast.increment_lineno(tree, block.line - 1)
    exec(compile(tree, str(block.page), "exec"), space)  # our own pages


def run_shell(block: Block) -> None:
    """Run every line of a block, which must be cheap commands of diffloom that succeed."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "diffloom", f"{block.page}:{block.line}: {line}"
            assert words[1] in CHEAP, f"{block.page}:{block.line}: {line} is not cheap; leave the block's language out"
            assert main(words[1:]) == 0, f"{block.page}:{block.line}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in _NEEDS:
        pytest.importorskip(_NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    shutil.copy(shipped()["quickstart"], tmp_path)
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")  # annotations are looked up in a class's module
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page):
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            run_python(block, vars(module))
        elif block.language == "sh":
            run_shell(block)


def test_fences_are_well_formed_and_of_a_known_language() -> None:
    known = {"", "python", "sh", "yaml", "toml", "text"}
    for page in PAGES:
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
        found = list(blocks(page))
        assert len(fences) == 2 * len(found), page
        assert {block.language for block in found} <= known, page


def test_a_wrong_block_is_told_with_its_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nfine = 1\nassert fine == 2\n```\n")
    (block,) = blocks(page)
    with pytest.raises(AssertionError) as caught:
        run_python(block, {})
    assert (Path(str(caught.traceback[-1].path)), caught.traceback[-1].lineno + 1) == (page, 5)
