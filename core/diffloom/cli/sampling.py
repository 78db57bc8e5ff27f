"""`sample`."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from diffloom.cli import options
from diffloom.cli.console import note, out

if TYPE_CHECKING:
    from diffloom.cli.work import Behaviour
    from diffloom.engine.run import Run

Count = Annotated[
    int | None,
    typer.Option("--count", "-n", min=1, metavar="N", help="How many. [default: the recipe's]", show_default=False),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds", metavar="LIST", help="One per item, as in 0-15 or 3,5,9. [default: 0, 1, …]", show_default=False
    ),
]
Give = Annotated[
    list[str] | None,
    typer.Option(
        "--give",
        metavar="KEY=VALUE",
        help="What to ask for, as in label=3, label=[0,1,2] (taken in turn) or image=FILE; repeatable.",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="KEY=VALUE",
        help="Ask about other data: keys of the recipe's `data` to change, as in path=FOLDER; repeatable.",
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Also write every item to a file of its own in DIR.")
]


def sample(
    run: options.Finished,
    count: Count = None,
    seeds: Seeds = None,
    give: Give = None,
    data: Data = None,
    settings: options.Settings = None,
    folder: Folder = None,
    hook: options.Hook = None,
    no_hook: options.NoHook = None,
    quiet: options.Quiet = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Draw samples from a trained run.

    An item depends on its seed and on what it is asked for, on nothing else. --set changes how it is sampled,
    not what the run remembers. The files that were written are printed.

    Examples:
      diffloom sample quickstart --count 16 --give label=3
      diffloom sample runs/quickstart --seeds 0-99 --set sampler.steps=20
      diffloom sample quickstart --set conditioners.digit.guidance=4 --out pictures
      diffloom sample super-resolution --data path=photographs --data split=all --count 8
      diffloom sample inpaint --give image=photograph.png --give mask=hole.png --seeds 0-3
    """
    from diffloom.cli.asking import conditions, numbers
    from diffloom.cli.changes import ask_about
    from diffloom.cli.work import Behaviour, interruptible

    wanted = numbers(seeds, count)
    work = finished(run, settings, Behaviour.of(hook, no_hook, quiet))
    total = len(wanted) if wanted is not None else work.recipe.header.sample.count
    if data:
        ask_about(work, data)
    batch = conditions(work, give, total) if give else None
    before = _files(work.directory)
    with interruptible(work), sampling_as(work):
        outputs = work.sample(total, seeds=wanted, batch=batch)
    for file, written in sorted(_files(work.directory).items()):
        if before.get(file) != written:
            out(str(file))
    if folder is not None:
        from diffloom.cli.pictures import write

        for file in write(outputs, folder):
            out(str(file))


def finished(name: str, settings: Sequence[str] | None, behaviour: "Behaviour") -> "Run":
    """Return a trained run, with settings that change how it samples or is judged."""
    from diffloom.cli.changes import apply, changed
    from diffloom.cli.work import open_run, run_of
    from diffloom.engine.run import LOCK_FILE
    from diffloom.recipe import lock
    from diffloom.recipe.recipe import load

    folder = run_of(name)
    kept = load(folder / LOCK_FILE)
    new = changed(kept, settings or ())
    for difference in lock.drift(kept):
        note(f"not what the run was made with: {difference}")
    work = open_run(kept, folder, behaviour.names(new))
    apply(work, new)
    work.load()
    if work.step < kept.header.train.steps:
        note(f"this run is not finished: it stands at step {work.step} of {kept.header.train.steps}")
    return work


def sampling_as(run: "Run") -> Any:
    """Return a context within which the run samples as its recipe says now."""
    from diffloom.sampler import Sampler

    config = run.recipe.part("sampler")
    if config is None:
        return nullcontext()
    sampler = run.recipe.registry.instantiate(config, {})
    return run.system.sampled_by(cast(Sampler, sampler))


def _files(directory: Path) -> dict[Path, int]:
    """Return the files of a run that a person looks at, with the time at which each was written."""
    return {
        file: file.stat().st_mtime_ns
        for file in directory.rglob("*")
        if file.is_file() and file.suffix in (".png", ".html", ".gif")
    }
