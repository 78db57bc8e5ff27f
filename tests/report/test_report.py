import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from diffloom.engine.run import Run
from diffloom.errors import RecipeError
from diffloom_report import write_report
from diffloom_report.files import records

from .conftest import ALL, STEPS, Killed, Killer
from .stand_in import hooks

VOID = {"meta", "link", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Reads a page, holding it to closed elements and to nothing from outside."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.pictures: list[bytes] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag not in ("script", "iframe", "object", "embed")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "xlink:href", "data"):
                assert value is not None
                assert value.startswith(("data:", "#"))
            if name == "id" and value:
                self.ids.add(value)
            if name == "src" and value:
                self.pictures.append(base64.b64decode(value.partition("base64,")[2]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        else:
            self.text.append(data)

    def says(self, text: str) -> bool:
        return text in re.sub(r"[ \n]+", " ", " ".join(self.text))


def test_the_page_shows_what_the_run_did_and_needs_no_other_file(whole: Path) -> None:
    page = Page(whole / "report.html")
    assert {"samples", "training", "evaluation", "messages", "recipe", "machine"} <= page.ids
    for text in ("woven", 'Digits <small & "quick">', f"Trained: {STEPS} steps", "12.25", "50.5", "3.5"):
        assert page.says(text)
    assert page.says("step 12 audit: no gradient reaches <nothing>")
    assert page.says("one-layer")
    assert page.says("diffloom 0.1.0")
    assert page.says("log_every : 2")
    drawn = [(whole / f"samples/step-{STEPS:08d}{end}.png").read_bytes() for end in ("", "-trajectory")]
    assert page.pictures[:2] == drawn
    assert page.says("seeds 0–5")
    assert len(page.pictures) == 4  # the last sheet, the way to it, and the sheets of steps 5 and 10
    assert page.tags.count("svg") == 3 + 1  # the loss, the rate and the gradient, and the distance by steps


def test_parameters_data_and_machine_are_told(whole: Path) -> None:
    about = json.loads((whole / "about.json").read_text())
    assert about["parts"]["denoiser"] == {"class": "OneLayer", "parameters": 10, "learning": 10}
    assert about["data"]["shape"] == [1, 8, 8]
    page = Page(whole / "report.html")
    assert page.says("10 parameters trained")
    assert page.says(f"{about['data']['samples']:,}".replace(",", "\u202f") + " samples of 1×8×8")
    for name in ("Processor", "Python", "torch"):
        assert page.says(f"{name} {about['environment'][name]}")


def test_the_last_loss_is_drawn_where_it_belongs(whole: Path) -> None:
    losses = [record["loss"] for record in records(whole / "metrics.jsonl")]
    text = (whole / "report.html").read_text()
    faint = re.search(r'class="curve c0 faint" points="([^"]+)"', text)
    assert faint
    heights = [float(place.partition(",")[2]) for place in faint[1].split()]
    assert len(heights) == len(losses)
    ranks = sorted(range(len(losses)), key=lambda i: losses[i])
    assert sorted(range(len(losses)), key=lambda i: -heights[i]) == ranks  # up is large


def test_samplers_stand_in_the_recipes_order_with_their_steps(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    table = text[text.index('id="evaluation"') : text.index('id="messages"')]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)[1:]]
    plain = [[re.sub("<[^>]+>", "", cell) for cell in row] for row in rows]
    assert plain == [
        ["the recipe’s own ddim", "4", "12.25", "3.5"],
        ["ddpm", "20", "8", "–"],
        ["quick ddim", "2", "50.5", "–"],
    ]
    assert table.count("<svg") == 1  # bits are known for one number of steps: nothing to draw
    assert "ddim: 50.5 at 2" in table
    assert "ddim: 12.25 at 4" in table
    assert "ddpm: 8 at 20" in table


def test_equal_files_give_an_equal_page(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(whole, copy)
    (copy / "report.html").unlink()
    assert write_report(copy) == copy / "report.html"
    assert (copy / "report.html").read_bytes() == write_report(whole).read_bytes()
    assert not [path for path in copy.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_killed_run_has_a_page_and_goes_on_to_the_same_figures(
    open_run: Callable[..., Run], whole: Path, tmp_path: Path, after: int
) -> None:
    directory = tmp_path / "woven"
    with pytest.raises(Killed):
        open_run(directory, killer=Killer(after)).train()
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')
    page = Page(write_report(directory))
    assert page.says(f"of {STEPS}")
    assert not page.says("Trained:")
    open_run(directory).train()
    assert (directory / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert Page(directory / "report.html").says(f"Trained: {STEPS} steps")


@pytest.mark.parametrize(
    "gone",
    ["metrics.jsonl", "timings.jsonl", "messages.log", "samples", "evaluation.json", "about.json", "checkpoints"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_whatever_is_missing_or_cut_short_the_rest_is_shown(whole: Path, tmp_path: Path, gone: str, cut: bool) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    lost = [path for path in [copy / gone, *(copy / gone).rglob("*")] if path.is_file()]
    for path in lost:
        path.write_bytes(path.read_bytes()[:-7]) if cut else path.unlink()
    page = Page(write_report(copy))
    assert page.says("woven")
    if gone == "samples":
        assert not page.pictures
    else:
        assert page.pictures
    assert page.says("12.25") == (gone != "evaluation.json")


def test_a_run_that_has_not_begun_has_a_page(open_run: Callable[..., Run], tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    assert page.says(f"At step 0 of {STEPS}")


def test_a_folder_without_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_figures_that_were_lost_are_told(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lr": 0.1, "loss": null}\n')
    assert Page(write_report(copy)).says("1 of 8 records have figures that are not finite")


def test_the_report_is_written_after_what_it_shows(open_run: Callable[..., Run], tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", hooks=ALL)
    run.sample(3)
    newest = (tmp_path / "run/samples/step-00000000.png").read_bytes()
    assert Page(tmp_path / "run/report.html").pictures[0] == newest


def test_the_verb_writes_the_page_of_a_run_by_folder_or_name(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "runs/woven")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    hooks("report").call("diffloom_commands", app=app)
    for named in ("woven", "runs/woven", str(tmp_path / "runs/woven")):
        (tmp_path / "runs/woven/report.html").unlink()
        result = CliRunner().invoke(app, [named])
        assert result.exit_code == 0
        assert Path(result.output.strip()).is_file()
        assert (tmp_path / "runs/woven/report.html").is_file()


def test_plugins_cost_nothing_until_they_act() -> None:
    modules = "metrics_log", "samples", "tensorboard", "report"
    code = "import sys\n" + "".join(f"import diffloom_report.{name}\n" for name in modules)
    code += "print(sorted({'torch', 'numpy', 'PIL', 'matplotlib', 'ruamel', 'typer', 'pydantic'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
