"""The pytest plugin: `pytest --diffloom` tests every registered component against its interface's contract.

Loaded into every pytest run of an environment that has diffloom, so it imports nothing heavy and does
nothing unasked.
"""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--diffloom` and `--diffloom-only`."""
    group = parser.getgroup("diffloom")
    group.addoption(
        "--diffloom",
        action="store_true",
        help="test every registered diffloom component against its interface's contract",
    )
    group.addoption(
        "--diffloom-only",
        action="append",
        metavar="KIND[/NAME]",
        help="with --diffloom: test only this component, this kind, or this package's; may be given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the contract's tests to what is collected, where that was asked for."""
    if config.getoption("--diffloom"):
        suite = str(Path(__file__).with_name("suite.py"))
        if suite not in config.args:
            config.args.append(suite)
