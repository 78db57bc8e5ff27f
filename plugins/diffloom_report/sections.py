"""Sections of the page: each takes what a run's folder says and returns HTML, or nothing where there is nothing."""

import re
from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from diffloom_report import charts
from diffloom_report.charts import Axis, Series, chart, legend
from diffloom_report.contents import MAIN, Contents, SampleSet
from diffloom_report.embed import picture
from diffloom_report.wording import duration, facts, figure, listed, plain, spans, table, whole

_EARLIER = 4
_STAGES = {
    "image": "",
    "trajectory": "From noise to image",
    "given": "What was given, the answer, and the truth where it is known",
}


def heading(run: Contents) -> str:
    """Return the name, the description, how far the run is, and its main figures."""
    said = {
        "trained": f"Trained: {whole(run.reached)} steps",
        "stopped": f"Stopped at step {whole(run.reached)} of {whole(run.steps)}; the same command goes on from there",
        "open": f"At step {whole(run.reached)} of {whole(run.steps)}: at work, or interrupted",
    }[run.status]
    share = 100 * min(1.0, run.reached / run.steps) if run.steps else 100
    description = str(run.recipe.get("description") or "")
    return (
        f"<header><h1>{escape(run.name)}</h1>"
        + (f'<p class="lead">{escape(description)}</p>' if description else "")
        + f'<p class="status {run.status}">{said}</p>'
        + f'<div class="done"><span style="width:{share:.1f}%"></span></div>{_strip(run)}</header>'
    )


def samples(run: Contents) -> str:
    """Return the newest samples, the way to them, and those of earlier steps."""
    if not run.samples:
        return ""
    newest, earlier = run.samples[-1], run.samples[:-1]
    parts = []
    for name, file in newest.pictures.items():
        title = _STAGES.get(name, name)
        shown = picture(file, says=f"{title or 'Samples'} at step {newest.step}")
        caption = _asked(newest) if name == "image" else f"{escape(title)}."
        parts.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>" if shown else "")
    if earlier:
        chosen = [earlier[round(i * (len(earlier) - 1) / max(1, _EARLIER - 1))] for i in range(_EARLIER)]
        parts.append("<h3>Over training</h3>" + _thumbnails([*dict.fromkeys(map(run.samples.index, chosen))], run))
    return "".join(parts)


def training(run: Contents) -> str:
    """Return the curves of all logged figures; those that are the same throughout are drawn once."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name in run.figures():
        if points := run.curve(name):
            names.setdefault(tuple(points), []).append(name)
    losses = [points for points, known in names.items() if any(_is_loss(name) for name in known)]
    parts = [_losses({", ".join(names[points]): points for points in losses})] if losses else []
    small = [_panel(", ".join(known), list(points)) for points, known in names.items() if points not in losses]
    parts.append(f'<div class="panels">{"".join(small)}</div>' if small else "")
    lost = sum(any(value is None for value in record.values()) for record in run.metrics)
    if lost:
        parts.append(f'<p class="warning">{lost} of {len(run.metrics)} records have figures that are not finite.</p>')
    return "".join(parts)


def evaluation(run: Contents) -> str:
    """Return the figures of every sampler by metric, and charts against the number of steps where that varies."""
    found = run.evaluation
    if not found:
        return ""
    metrics = list(dict.fromkeys(metric for measured in found.values() for metric in measured))
    rows = [
        [_sampler_cell(run, name), str(run.sampler_steps(name) or "–"), *(figure(measured.get(m)) for m in metrics)]
        for name, measured in found.items()
    ]
    at = f"<p>Judged at step {whole(run.evaluated_at)}.</p>" if run.evaluated_at is not None else ""
    return (
        at
        + table(["Sampler", "Steps", *map(escape, metrics)], rows, numbers=range(1, len(metrics) + 2))
        + f'<div class="panels">{"".join(_by_steps(run, metric) for metric in metrics)}</div>'
    )


def messages(run: Contents) -> str:
    """Return what the user was told: findings of the audit, damaged checkpoints, hooks that failed."""
    items = "".join(f'<li><span class="when">{escape(when)}</span> {escape(text)}</li>' for when, text in run.messages)
    return f'<ul class="messages">{items}</ul>' if items else "<p>Nothing had to be said.</p>"


def recipe(run: Contents) -> str:
    """Return the parts with their versions and sizes, and the recipe as YAML."""
    sources = run.versions.get("components") or {}
    built = run.about.get("parts", {})
    roles = {role: run.recipe[role] for role in run.recipe if _is_component(run.recipe[role])}
    roles |= {f"conditioners.{name}": config for name, config in (run.recipe.get("conditioners") or {}).items()}
    rows = []
    for role, config in roles.items():
        size = built.get(role, {}).get("parameters")
        source = str(sources.get(role, "")).partition(" from ")[2]
        rows.append(
            [escape(role), f"<code>{escape(str(config['type']))}</code>", whole(size) if size else "", escape(source)]
        )
    train = [(name.replace("_", " "), plain(value)) for name, value in (run.recipe.get("train") or {}).items()]
    return (
        table(["Role", "Component", "Parameters", "From"], rows, numbers=[2])
        + f"<h3>Settings of the training</h3>{facts(train)}"
        + f'<details><summary>The whole recipe</summary><pre class="yaml">{_coloured(run.text)}</pre></details>'
    )


def machine(run: Contents) -> str:
    """Return the machine, the versions and the times at which the run was at work."""
    known = {**run.about.get("environment", {})}
    if not known:
        known = {name: str(run.versions[name]) for name in ("diffloom", "torch", "python") if name in run.versions}
    rows = []
    for events in _sessions(run.timings):
        seconds = sum(event.get("seconds", 0) for event in events)
        steps = [f"{whole(events[0]['step'])} → {whole(events[-1]['step'])}"]
        rows.append([escape(str(events[0].get("at", ""))), *steps, duration(seconds), _speed(events)])
    worked = table(["Started (UTC)", "Steps", "Time", "Steps/s"], rows, numbers=[1, 2, 3]) if rows else ""
    return facts(known.items()) + worked


# --- inside ----------------------------------------------------------------------------------------------------


def _strip(run: Contents) -> str:
    """Return the main figures as a row."""
    found: list[tuple[str, str]] = []
    for name in filter(_is_loss, run.figures()):
        if points := run.curve(name):
            found.append((name, figure(charts.running([y for _, y in points])[-1])))
    learning = sum(part["learning"] for part in run.about.get("parts", {}).values())
    sessions = _sessions(run.timings)
    found += [("parameters trained", charts.number(learning))] if learning else []
    if data := run.about.get("data"):
        found.append((f"samples of {'×'.join(map(str, data['shape']))}", whole(data["samples"])))
    if sessions and _speed(sessions[-1]) != "–":
        found.append(("steps per second", _speed(sessions[-1])))
        found.append(("at work", duration(sum(event.get("seconds", 0) for event in run.timings))))
    items = "".join(f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>" for name, value in found[:6])
    return f'<dl class="strip">{items}</dl>' if items else ""


def _sessions(timings: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the timings of each time that the run was at work."""
    sessions: list[list[dict[str, Any]]] = []
    for event in timings:
        if event.get("event") == "started" or not sessions:
            sessions.append([])
        sessions[-1].append(event)
    return sessions


def _speed(events: Sequence[dict[str, Any]]) -> str:
    rates = [event["steps_per_second"] for event in events if "steps_per_second" in event]
    return charts.number(median(rates)) if rates else "–"


def _asked(one: SampleSet) -> str:
    asked = one.record.get("asked", {})
    texts = [f"Step {whole(one.step)}", f"seeds {spans(one.record.get('seeds', []))}"]
    classes, labels = one.record.get("classes", []), asked.get("label")
    if classes and isinstance(labels, list):
        names = [classes[label] for label in dict.fromkeys(labels) if 0 <= label < len(classes)]
        texts.append(f"asked for {listed(names)}")
    others = [key for key in asked if key != "label"]
    texts += [f"given {listed(others)}"] if others else []
    return escape("; ".join(texts)) + "."


def _thumbnails(indices: Sequence[int], run: Contents) -> str:
    items = []
    for one in (run.samples[index] for index in indices):
        name = next(iter(one.pictures))
        shown = picture(one.pictures[name], says=f"Samples at step {one.step}", width=440)
        items.append(f"<figure>{shown}<figcaption>Step {whole(one.step)}</figcaption></figure>" if shown else "")
    return f'<div class="thumbnails">{"".join(items)}</div>'


def _is_loss(name: str) -> bool:
    return name.rpartition("/")[2] == "loss"


def _losses(curves: dict[str, Sequence[tuple[float, float]]]) -> str:
    """Return the chart of the losses: every record faint, their running average on top."""
    faint = [Series(name, points, faint=True, colour=i) for i, (name, points) in enumerate(curves.items())]
    clear = [Series(name, charts.smoothed(points), colour=i) for i, (name, points) in enumerate(curves.items())]
    drawn = chart([*faint, *clear], title="Loss by step", log=True, size=(760, 300))
    return (
        f'<figure class="plot"><h3>{escape(" · ".join(curves))}</h3>{legend(clear)}{drawn}'
        "<figcaption>Every record, and their running average; logarithmic.</figcaption></figure>"
    )


def _panel(name: str, points: list[tuple[float, float]]) -> str:
    """Return the chart of one figure, with its running average where it is noisy."""
    series = [Series(name, points)]
    if charts.noisy(points):
        series = [Series(name, points, faint=True), Series(name, charts.smoothed(points))]
    return f'<figure class="plot"><h3>{escape(name)}</h3>{chart(series, title=f"{name} by step")}</figure>'


def _by_steps(run: Contents, metric: str) -> str:
    """Return a metric against the number of sampling steps, a curve per kind of sampler."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, measured in run.evaluation.items():
        steps, value = run.sampler_steps(name), measured.get(metric)
        if steps is not None and value is not None and figure(value) != "–":
            groups.setdefault(_kind(run, name), []).append((steps, value))
    counts = sorted({steps for points in groups.values() for steps, _ in points})
    if len(counts) < 2:
        return ""
    series = [
        Series(kind, sorted(set(points)), marked=True, colour=i) for i, (kind, points) in enumerate(groups.items())
    ]
    drawn = chart(
        series, title=f"{metric} by sampling steps", x=Axis(counts, log=True, ticks=counts), x_name="sampling steps"
    )
    return f'<figure class="plot"><h3>{escape(metric)}</h3>{drawn}{legend(series)}</figure>'


def _kind(run: Contents, name: str) -> str:
    """Return a sampler's type with what distinguishes it from others of that type, steps apart."""
    configs = [run.sampler(other) for other in run.evaluation]
    own = run.sampler(name)
    alike = [config for config in configs if config.get("type") == own.get("type")]
    varied = [
        f"{key} {plain(value)}"
        for key, value in own.items()
        if key not in ("type", "steps") and any(config.get(key) != value for config in alike)
    ]
    return " ".join([str(own.get("type", name)), *varied])


def _sampler_cell(run: Contents, name: str) -> str:
    title = "the recipe’s own" if name == MAIN else name
    kind = _kind(run, name)
    return escape(title) + (f' <span class="dim">{escape(kind)}</span>' if kind != title else "")


def _is_component(value: object) -> bool:
    return isinstance(value, dict) and "type" in value


def _coloured(text: str) -> str:
    """Return YAML as HTML with its keys marked."""
    lines = (re.sub(r"^(\s*(?:- )*)([\w.-]+):", r"\1<b>\2</b>:", escape(line)) for line in text.splitlines())
    return "\n".join(lines)
