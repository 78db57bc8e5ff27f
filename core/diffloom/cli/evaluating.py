"""`eval`."""

from diffloom.cli import options
from diffloom.cli.console import out, out_json, table_of_figures


def evaluate(
    run: options.Finished,
    settings: options.Settings = None,
    hook: options.Hook = None,
    no_hook: options.NoHook = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Judge a trained run by the metrics of its recipe.

    One line for each sampler that the recipe names, on the same weights. The figures are kept in the run's
    evaluation.json.

    Examples:
      diffloom eval quickstart
      diffloom eval runs/quickstart --set eval.count=1000 --json
    """
    from diffloom.cli.sampling import finished, sampling_as
    from diffloom.cli.work import Behaviour, interruptible
    from diffloom.errors import RecipeError

    work = finished(run, settings, Behaviour.of(hook, no_hook, quiet))
    if not work.recipe.metrics:
        raise RecipeError(
            "the recipe names no metric",
            where="eval.metrics",
            remedy="give some with --set 'eval.metrics=[{type: …}]'; `diffloom list metric` shows what is installed",
        )
    with interruptible(work), sampling_as(work):
        figures = work.evaluate()
    if as_json:
        out_json({"run": str(work.directory), "step": work.step, "figures": figures})
    else:
        out(table_of_figures(figures))
