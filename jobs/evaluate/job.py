"""Temporary dispatcher."""

from cluster.errors import UserError
from jobs.evaluate.config import SETTLED_BY_SUITE, EvaluateConfig


def run(config: EvaluateConfig) -> dict:
    """The whole evaluation; returns the content of report.json. Raises UserError for the user's mistakes."""
    # Here, so that `--help` waits for neither torch nor LanceDB.
    from jobs.evaluate import compare, output_files
    from lab.suite import job as suite

    if config.report:
        return suite.redraw(config) if output_files.read_config(config).suite else compare.redraw(config)
    if config.suite:
        check_suite(config)
        return suite.suite(config)
    return compare.compare(config)


def check_suite(config: EvaluateConfig) -> None:
    """Raises UserError for options that a suite settles itself."""
    fields = EvaluateConfig.model_fields
    told = [name for name in SETTLED_BY_SUITE if getattr(config, name) != fields[name].default]
    if told:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in told)
        raise UserError(f"--suite {config.suite} settles {options} itself: leave out what was said of it.")
