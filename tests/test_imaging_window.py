"Window arithmetic against the formulas of DICOM PS3.3 C.11.2, written here a second time, value by value."

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import ImageError, MedkitError
from medkit.imaging.window import PRESETS, Window, apply_window, minmax_window, resolve_window, to_uint8

finite = st.floats(-5000, 5000, width=32)


def standard(x, c, w, function):
    "PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with y from 0 to 1."
    if function == "LINEAR":
        if x <= c - 0.5 - (w - 1) / 2:
            return 0.0
        if x > c - 0.5 + (w - 1) / 2:
            return 1.0
        return (x - (c - 0.5)) / (w - 1) + 0.5
    if function == "LINEAR_EXACT":
        if x <= c - w / 2:
            return 0.0
        if x > c + w / 2:
            return 1.0
        return (x - c) / w + 0.5
    return 1 / (1 + math.exp(min(700, -4 * (x - c) / w)))


@settings(max_examples=300, deadline=None)
@given(st.lists(finite, min_size=1, max_size=20), finite, st.floats(1.5, 4000), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_formula(values, center, width, function):
    got = apply_window(np.array(values, np.float64), Window(center, width, function))
    want = [standard(x, center, width, function) for x in values]
    np.testing.assert_allclose(got, want, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-2000, 4000), min_size=2, max_size=50), st.integers(-600, 600), st.integers(1, 3000))
def test_monotone_and_whole_range(values, center, width):
    ordered = np.sort(np.array(values, np.int16))
    grey = to_uint8(apply_window(ordered, Window(center, width)))
    assert (np.diff(grey.astype(int)) >= 0).all()
    black, white = Window(center, width).limits
    assert (grey[ordered <= black] == 0).all() and (grey[ordered > white] == 255).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30))
def test_minmax_reaches_both_ends(values):
    grey = apply_window(np.array(values), minmax_window(values))
    if max(values) - min(values) > 1e-3:
        assert grey.min() == pytest.approx(0, abs=1e-6) and grey.max() == pytest.approx(1, abs=1e-5)
    else:
        assert np.isfinite(grey).all()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.none(), st.text(max_size=20), st.integers(), st.floats(allow_nan=True), st.lists(st.integers()), st.binary(max_size=5)))
def test_odd_choices_raise_the_family_only(choice):
    try:
        assert isinstance(resolve_window(choice, (Window(1, 2), Window(3, 4)), np.arange(3)), Window)
    except MedkitError as error:
        assert error.reason == "unknown_window"
        assert all(name in error.hint for name in PRESETS)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.none(), st.text(max_size=5), st.floats(allow_nan=True)), st.one_of(st.none(), st.text(max_size=5), st.floats(allow_nan=True)))
def test_a_window_is_valid_or_refused(center, width):
    try:
        window = Window(center, width, "LINEAR_EXACT")
    except ImageError as error:
        assert error.reason == "bad_window"
    else:
        assert window.width > 0 and math.isfinite(window.center)


def test_huge_and_tiny_values_do_not_overflow():
    with np.errstate(all="raise"):
        assert apply_window(np.array([-1e30, 0, 1e30]), Window(0, 1e-3, "SIGMOID")).tolist() == [0, 0.5, 1]
    values = np.array([0, 1e-5, 2e-5])
    assert to_uint8(apply_window(values, minmax_window(values))).tolist() == [0, 128, 255]


def test_integers_of_every_kind():
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"):
        assert apply_window(np.array([0, 50, 100], kind), Window(50, 100, "LINEAR_EXACT")).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("name", [*PRESETS, "Soft Tissue", "soft-tissue", "minmax"])
def test_names_are_windows_too(name):
    values = np.linspace(-1200, 2000, 41)
    assert np.array_equal(apply_window(values, name), apply_window(values, resolve_window(name, (), values)))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.none(), st.text(max_size=20), st.integers(), st.floats(), st.lists(st.integers()), st.binary(max_size=5), st.just("9" * 5000)))
def test_what_is_no_window_is_refused(choice):
    with pytest.raises(ImageError) as caught:
        apply_window(np.arange(3), choice)
    assert caught.value.reason == "unknown_window" and None not in (caught.value.found, caught.value.expected)


@pytest.mark.parametrize("values", [None, "abc", b"x", {}, [1j], [[1], [1, 2]], np.array(["a"])], ids=str)
def test_what_is_no_number_is_refused(values):
    with pytest.raises(ImageError) as caught:
        apply_window(values, "lung")
    assert caught.value.reason == "bad_shape" and None not in (caught.value.found, caught.value.expected)


@pytest.mark.parametrize("arguments", [
    (0, 0), (0, 0.5), (math.nan, 9), ("40", 400), (40, None), (10**400, 9), (0, 10**400), (np.zeros(3), 9), (0, 9, "CUBIC"), (0, 9, ["LINEAR"]),
    (0, 9, None), (0, 9, np.zeros(2)),
], ids=lambda arguments: repr(arguments)[:40])
def test_a_bad_window_says_what_was_found_and_expected(arguments):
    with pytest.raises(ImageError) as caught:
        Window(*arguments)
    assert caught.value.reason == "bad_window" and None not in (caught.value.found, caught.value.expected)
    assert len(str(caught.value)) < 400
