"""Contracts: what every component of an interface must do, as small named checks.

A check runs where a component declares what it is about (taps, ports, an order, randomness), never by its
name. A component class may carry attributes for them:

- `examples`: a tuple of parameter sets as a recipe writes them, tested in place of the defaults: for
  parameters without default, and small versions of large networks. Where they need files it is a static
  method instead, `examples(folder)`, that writes them into the folder it is given and returns that tuple;
- `example_batch(count, space)`: a static method of a conditioner or task that reads keys of its own. It returns
  those keys for a batch of `count` items, whose images are of `space`;
- `expected_failures`: {check: reason}. It is strict: such a check must fail.
"""

from diffloom.testing.contracts.autoencoders import AutoencoderContract
from diffloom.testing.contracts.base import (
    Case,
    Check,
    Contract,
    Falsified,
    NotApplicable,
    Outcome,
    applies,
    for_all,
    require,
)
from diffloom.testing.contracts.conditioners import ConditionerContract
from diffloom.testing.contracts.data import DatasetContract, TransformContract
from diffloom.testing.contracts.denoisers import DenoiserContract
from diffloom.testing.contracts.metrics import MetricContract
from diffloom.testing.contracts.running import CONTRACTS, cases, verify
from diffloom.testing.contracts.samplers import SamplerContract
from diffloom.testing.contracts.schedules import ScheduleContract
from diffloom.testing.contracts.tasks import TaskContract

__all__ = [
    "CONTRACTS",
    "AutoencoderContract",
    "Case",
    "Check",
    "ConditionerContract",
    "Contract",
    "DatasetContract",
    "DenoiserContract",
    "Falsified",
    "MetricContract",
    "NotApplicable",
    "Outcome",
    "SamplerContract",
    "ScheduleContract",
    "TaskContract",
    "TransformContract",
    "applies",
    "cases",
    "for_all",
    "require",
    "verify",
]
