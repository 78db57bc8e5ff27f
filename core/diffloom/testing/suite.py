"""The tests that `pytest --diffloom` adds: every check of every registered component, one test each."""

import pytest

from diffloom.errors import DiffloomError
from diffloom.testing.contracts import CONTRACTS, Case, NotApplicable
from diffloom.testing.contracts.running import chosen, component_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each check; a component that cannot be loaded is one failing test."""
    params = []
    for wanted in metafunc.config.getoption("diffloom_only") or CONTRACTS:
        try:
            components = chosen([wanted])
        except DiffloomError as error:
            params.append(pytest.param(error, id=f"{wanted}/loads"))
            continue
        for kind, name in components:
            try:
                found: list[Case | DiffloomError] = list(component_cases(kind, name))
            except DiffloomError as error:
                found = [error]
            for case in found:
                label = case.id if isinstance(case, Case) else f"{kind}/{name}/loads"
                params.append(pytest.param(case, id=label))
    metafunc.parametrize("case", params)


def test_component(case: Case | DiffloomError, request: pytest.FixtureRequest) -> None:
    """The component keeps the law that the check is named after."""
    if isinstance(case, DiffloomError):
        raise case
    if case.expected_failure is not None:
        request.applymarker(pytest.mark.xfail(strict=True, reason=case.expected_failure))
    try:
        case.check.run(case.make)
    except NotApplicable as reason:
        pytest.skip(str(reason))
