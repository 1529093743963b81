"""How numbers are written."""

import pytest

from lisabench.reports import formatting
from lisabench.reports.schema_base import NO_RATIO, Milliseconds, Ratio

pytestmark = pytest.mark.no_clock


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0, "0.00"), (0.001, "<0.01"), (0.456, "0.46"), (9.994, "9.99"),
     (9.996, "10.0"),
     (64.06, "64.1"),
     (99.96, "100"), (1234.5, "1,234")],
)  # fmt: skip
def test_times_have_three_digits(value, text):
    assert formatting.milliseconds(value) == text


def test_large_memory_is_shown_in_gib():
    unit = formatting.memory_unit([None, 15 << 30])
    assert unit.name == "GiB"
    assert formatting.memory(15 << 30, unit) == "15.00"
    assert formatting.memory_unit([9 << 30]).name == "MiB"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.7, 0.74, "0.72x [0.70, 0.74]"),
        (None, None, "0.72x"),
        (0.72, 0.72, "0.72x"),
    ],
)
def test_a_ratio_shows_its_interval_where_that_has_a_width(low, high, text):
    ratio = Ratio(ratio=0.72, low=low, high=high, processes=3, smallest_detectable=None)
    assert formatting.ratio_with_interval(ratio) == text


def test_a_ratio_that_is_not_known_is_not_available():
    assert formatting.ratio_with_interval(NO_RATIO) == "n/a"
    assert not formatting.excludes_one(NO_RATIO)
    assert not formatting.interval_is_point(NO_RATIO)


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.7, 0.9, True), (0.9, 1.1, False), (1.0, 1.2, False)]
)
def test_an_interval_that_ends_at_one_does_not_exclude_it(low, high, excludes):
    ratio = Ratio(ratio=1.0, low=low, high=high, processes=3, smallest_detectable=None)
    assert formatting.excludes_one(ratio) is excludes


def test_a_half_is_as_far_from_one_as_a_double():
    assert formatting.distance_from_one(0.5) == pytest.approx(formatting.distance_from_one(2.0))


def test_a_change_has_a_sign_and_two_decimals_below_one_millisecond():
    change = Milliseconds(ms=-0.251, low=-1.26, high=-0.0001, processes=3)
    assert formatting.milliseconds_change(change) == "-0.25 [-1.3, +0.00]"


def test_a_change_of_memory_is_in_the_unit_of_the_table():
    assert formatting.memory_change(-3 * 2**20, formatting.MIB) == "-3"
    assert formatting.memory_change(3 * 2**29, formatting.GIB) == "+1.50"


def test_names_are_enumerated_as_in_a_sentence():
    assert formatting.listed([]) == ""
    assert formatting.listed(["a"]) == "a"
    assert formatting.listed(["a", "b"]) == "a and b"
    assert formatting.listed(["a", "b", "c"]) == "a, b and c"
