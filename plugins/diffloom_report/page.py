"""The page: one HTML file with its style, pictures and curves inside, readable without a script or a network."""

from html import escape
from importlib import resources

from diffloom_report import sections
from diffloom_report.contents import Contents

_SECTIONS = {
    "Samples": sections.samples,
    "Training": sections.training,
    "Evaluation": sections.evaluation,
    "Messages": sections.messages,
    "Recipe": sections.recipe,
    "Machine": sections.machine,
}


def page(run: Contents) -> str:
    """Return the page of a run; equal files in its folder give an equal page."""
    style = resources.files("diffloom_report").joinpath("page.css").read_text(encoding="utf-8")
    made = {title: make(run) for title, make in _SECTIONS.items()}
    shown = {title: body for title, body in made.items() if body}
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in shown)
    bodies = "".join(f'<section id="{title.lower()}"><h2>{title}</h2>{body}</section>' for title, body in shown.items())
    version = escape(str(run.versions.get("diffloom", "")))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(run.name)} · diffloom</title>\n<style>\n{style}</style>\n</head>\n"
        f'<body>\n<div class="weave" aria-hidden="true"></div>\n<main>\n{sections.heading(run)}\n'
        f"<nav>{links}</nav>\n{bodies}\n"
        f"<footer>Woven by diffloom {version} from the files beside this page.</footer>\n</main>\n</body>\n</html>\n"
    )
