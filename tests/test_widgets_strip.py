"""The live strip chart without a browser and without a clock: what each tick pushes, what is known, what is kept."""

import math

import ipywidgets as widgets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import every_widget

from medkit.errors import MedkitError, SignalError
from medkit.signals.recording import Recording
from medkit.signals.simulate import simulate_bcg
from medkit.signals.stream import BcgStream
from medkit.widgets.strip import Strip, StripChart, chart_strip, pause, play, restart, step, strip_png, strip_text, tick, watch_recording


@pytest.fixture(scope="module")
def night():
    return simulate_bcg(150, 100, snr_db=10, seed=7, movements_per_hour=100, bed_exits_per_hour=0)[0]


def same(one, other) -> bool:
    "Rows with equal values, NaN equal to NaN."
    return [repr(row) for row in one] == [repr(row) for row in other]


def test_the_strip_tells_what_the_stream_tells(night):
    strip, stream = Strip(100.0, "N"), BcgStream(100.0)
    for second in range(150):
        part = night.samples[0, 100 * second: 100 * (second + 1)]
        assert same(strip.push(part), stream.push(part))
    assert len(strip.rows) == 11 and strip.now_s == 150


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(0, 7000), max_size=6))
def test_pieces_of_any_length_make_the_same_strip(night, cuts):
    whole, pieces = Strip(100.0), Strip(100.0)
    whole.push(night.samples[0, :7000])
    for part in np.split(night.samples[0, :7000], sorted(cuts)):
        pieces.push(part)
    assert same(whole.rows, pieces.rows) and np.allclose(whole._heart, pieces._heart) and whole.now_s == pieces.now_s
    assert strip_text(whole) == strip_text(pieces)


def test_the_trace_does_not_look_ahead(night):
    "What is drawn at a moment stays as it is, whatever comes later."
    calm, wild = Strip(100.0), Strip(100.0)
    calm.push(night.samples[0, :4000])
    before = calm._heart.copy()
    wild.push(np.concatenate([night.samples[0, :4000], np.full(500, 1e3)]))
    assert np.allclose(wild._heart[:4000], before)


def test_memory_stays_the_same():
    strip, rng = Strip(50.0, hop_s=30), np.random.default_rng(0)
    for _ in range(15):
        strip.push(rng.normal(size=50 * 60))
    assert len(strip._heart) == 3000 and len(strip.rows) == 20 and strip.now_s == 900
    assert len(strip_png(strip)) > 1000


def test_missing_samples_are_holes_and_no_faults(night):
    values = night.samples[0].copy()
    values[:300] = values[3000:9000] = np.nan
    strip = Strip(100.0)
    for part in np.array_split(values, 12):
        strip.push(part)
        assert len(strip_png(strip)) > 1000
    assert any("missing samples" in row.reason for row in strip.rows)
    empty = Strip(100.0)
    empty.push(np.full(9000, np.nan))
    assert "Nobody" in strip_text(empty) and "withheld" in strip_text(empty) and len(strip_png(empty)) > 1000


@pytest.mark.parametrize("samples, reason", [([math.inf], "not_finite"), (["x"], "not_numeric"), (np.zeros((2, 5)), "bad_shape")])
def test_bad_samples_are_refused_and_change_nothing(samples, reason):
    strip = Strip(100.0)
    with pytest.raises(SignalError) as caught:
        strip.push(samples)
    assert caught.value.reason == reason and strip.now_s == 0 and len(strip._heart) == 0


def test_steps_need_no_clock(night):
    chart = watch_recording(night)
    assert "first numbers come after 45 s" in chart.readout.value and chart.clock.playing is False
    assert [len(step(chart, seconds)) for seconds in (44.5, 0.5, 10, 0.5)] == [0, 1, 1, 0]
    assert "Second 55.5 of 150.0" in chart.place.value
    said, shown = chart.readout.value, bytes(chart.picture.value)
    step(chart, 1)
    assert chart.readout.value == said and bytes(chart.picture.value) != shown, "words change with a row only"


def test_the_clock_pushes_time_by_the_speed_and_stops_at_the_end(night):
    chart = watch_recording(night, speed=30)
    play(chart)
    for count in range(1, 11):
        chart.clock.value = count  # what the browser sends
    assert chart.strip.now_s == 150 and "The recording is over" in chart.place.value and len(chart.strip.rows) == 11
    chart.clock.value = 11
    assert chart.clock.playing is False and chart.strip.now_s == 150
    assert step(chart, 10) == [] and chart.strip.now_s == 150


def test_stop_and_restart_begin_anew(night):
    chart = watch_recording(night, played_s=60)
    chart.clock.value = 1
    play(chart)
    chart.clock.value = 0
    assert (chart.strip.now_s, len(chart.strip.rows), chart.clock.playing) == (0, 0, False)
    step(chart, 20)
    restart(chart)
    assert chart.strip.now_s == 0
    play(chart)
    pause(chart)
    assert chart.clock.playing is False
    tick(chart, 5)
    assert chart.strip.now_s == 0.5


def test_buttons_do_what_they_say(night):
    chart = watch_recording(night)
    assert list(chart.buttons) == ["Play", "Pause", "Step 1 s", "Step 10 s", "From the start"]
    for name in ("Step 1 s", "Step 10 s", "Play"):
        chart.buttons[name].click()
    assert chart.strip.now_s == 11 and chart.clock.playing is True
    chart.buttons["Pause"].click()
    assert chart.clock.playing is False
    before = bytes(chart.picture.value)
    chart.length.value = 60
    assert bytes(chart.picture.value) != before
    chart.buttons["From the start"].click()
    assert chart.strip.now_s == 0
    for part in every_widget(chart):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))
        if isinstance(part, widgets.Button | widgets.Dropdown | widgets.IntSlider):
            assert part.description and part.tabbable is not False


def test_withheld_and_unjudged_time_are_two_textures():
    rng = np.random.default_rng(1)
    strip = Strip(100.0)
    strip.push(rng.normal(size=9000))
    assert all(math.isnan(row.heart_rate_bpm) for row in strip.rows) and "Heart rate withheld:" in strip_text(strip)
    from medkit.widgets.strip import _spans

    spans = _spans(strip, 0)
    assert spans["not judged yet"].tolist() == [[70, 90]] and spans["withheld"].tolist() == [[0, 70]]


@pytest.mark.parametrize("change, reason", [
    ({"recording": None}, "bad_shape"), ({"channel": "no such"}, "bad_column"), ({"speed": 3}, "bad_option"), ({"speed": True}, "bad_option"),
    ({"speed": [1]}, "bad_option"), ({"played_s": -1}, "bad_option"), ({"played_s": "all"}, "bad_option"), ({"policy": "lax"}, "bad_option"),
    ({"recording": Recording(np.zeros((2, 4000)), 100.0)}, "bad_column"), ({"recording": Recording(np.zeros(400), 10.0)}, "bad_option"),
])
def test_bad_input_is_refused_in_words(night, change, reason):
    with pytest.raises(MedkitError) as caught:
        watch_recording(**({"recording": night} | change))
    assert caught.value.reason == reason


def test_the_twin_needs_no_script(night):
    page = chart_strip(night, (40, 90))
    assert "<script" not in page and "http" not in page and page.count("<img alt=") == 2 and len(page) < 150_000
    chart = StripChart(night)
    data, about = chart._repr_mimebundle_()
    assert len(data["image/png"]) < 60 * 1024 and "after 0 s" in about["image/png"]["alt"]
    with pytest.raises(MedkitError):
        chart_strip(night, ())
