import math
import re

import pytest

from diffloom_report import charts
from diffloom_report.charts import Axis, Series, chart, linear_ticks, log_ticks, number, running, smoothed
from diffloom_report.wording import duration, figure, listed, spans


@pytest.mark.parametrize("log", [False, True])
def test_an_axis_maps_its_bounds_to_the_ends_and_its_ticks_between(log: bool) -> None:
    axis = Axis([0.02, 7.0, 0.5], log=log)
    assert axis(0.02) == 0
    assert axis(7.0) == 1
    middle = math.sqrt(0.02 * 7.0) if log else (0.02 + 7.0) / 2
    assert axis(middle) == pytest.approx(0.5)
    assert len(axis.ticks) >= 3
    assert all(0 <= axis(tick) <= 1 for tick in axis.ticks)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [-2.0, 5.0], [1e-9, 1e9], [1.0, 1.0000001], [0.0, 1.0]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_have_an_axis(values: list[float], log: bool) -> None:
    axis = Axis(values, log=log)
    assert axis.ticks
    assert all(0 <= axis(value) <= 1 for value in values)


def test_ticks_are_round() -> None:
    assert linear_ticks(3.1, 12.5, 4) == [4, 6, 8, 10, 12]
    assert linear_ticks(0, 1500, 6) == [0, 200, 400, 600, 800, 1000, 1200, 1400]
    assert linear_ticks(0, 0.001, 4) == [0, 0.0002, 0.0004, 0.0006, 0.0008, 0.001]
    assert log_ticks(0.03, 1.2, 6) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1])
    assert log_ticks(1e-6, 1e3, 5)[0] == 1e-6


def test_an_average_of_a_straight_line_is_that_line_in_its_middle_and_does_not_lag() -> None:
    line = [(float(x), 2.0 * x) for x in range(400)]
    assert smoothed(line)[200] == pytest.approx((200, 400), abs=1e-6)
    assert running([5.0] * 30) == pytest.approx([5.0] * 30)
    assert running([1.0, 2.0, 3.0])[0] == 1


def test_noise_is_told_from_a_schedule() -> None:
    assert charts.noisy([(x, math.sin(7.7 * x * x)) for x in range(200)])
    assert not charts.noisy([(x, min(x / 20, math.cos(x / 150))) for x in range(200)])


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    drawn = chart([Series("loss", [(x, 1 + x % 2) for x in range(50_000)])], title="t", size=(400, 200))
    points = re.search(r'points="([^"]+)"', drawn)
    assert points
    places = points[1].split()
    assert 100 < len(places) < 400
    assert places[-1].startswith(f"{400 - charts._RIGHT:.1f},")


def test_numbers_are_short_and_exact_enough() -> None:
    cases = {0: "0", 1500: "1500", 12_000: "12k", 3.2e6: "3.2M", 0.0125: "0.0125", 5e-5: "5e−5", -2.5: "−2.5"}
    assert {value: number(value) for value in cases} == cases
    assert [figure(v) for v in (0.97123, 12.5, 123456.0, 2.5e-5, math.nan, None)] == [
        "0.9712", "12.5", "123456", "2.500e−05", "–", "–",
    ]  # fmt: skip


def test_words_for_spans_of_time_and_of_numbers() -> None:
    assert [duration(s) for s in (3.21, 42, 60, 3599, 7300)] == [
        "3.2 s",
        "42 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 1 min",
    ]
    assert spans([0, 1, 2, 3, 7, 9, 10]) == "0–3, 7, 9–10"
    assert spans([]) == ""
    assert listed(range(14)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 2 more"
