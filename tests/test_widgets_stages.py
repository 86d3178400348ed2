"""The widgets of the stages: what a form reads, what a slider turns, what is written down; then all of them in a real browser."""

import re
from dataclasses import fields, replace

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
from chromium import (
    PICTURE_BYTES, cell_of, cut_labels, keep_screenshot, labelled, nothing_in_the_way, notebook_of, page_of, press_button,
    wait_for_picture, wait_for_words,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import HOSTILE, every_widget, harmless, html_of

from medkit import stages
from medkit import widgets as faces
from medkit.errors import MedkitError, ModelError, StageError
from medkit.learning.report import ByPatient

WORKED = {card.idea.name: card for card in stages.worked_ideas()}
SLEEP, HEART, FALL = WORKED["bcg-sleep-wake"], WORKED["bcg-heart-failure"], WORKED["wrist-fall-alarm"]


def sly(card, **more):
    "The card with markup in every text that a person types."
    words = {name: HOSTILE for name in ("question", "users", "output", "metric", "decision", "labels")}
    return replace(card, idea=replace(card.idea, name=HOSTILE, papers=(HOSTILE,), also_needs=(HOSTILE,), **words, **more),
                   deployment=replace(card.deployment, name=HOSTILE))


@pytest.fixture
def store(tmp_path):
    return stages.Store(tmp_path / "project.sqlite")


PEOPLE = [f"person-{number}" for number in range(12)]
FOLDS = tuple(tuple(PEOPLE[start::3]) for start in range(3))


def train(settings):
    skill = {"samples": 0.5, "features": 0.6, "pictures": 0.55}[settings["space"]] + {"plain": 0, "deep": 0.1}[settings["model"]]
    if (settings["space"], settings["model"]) == ("pictures", "deep"):
        raise MemoryError(HOSTILE)
    draw = np.random.default_rng([settings["seed"], *map(ord, settings["space"] + settings["model"])])
    luck = dict(zip(PEOPLE, draw.normal(0, 0.03, len(PEOPLE))))
    values = {name: skill + luck[name] for name in FOLDS[settings["fold"]]}
    return ByPatient("balanced accuracy", values, dict.fromkeys(values, 0.5), "majority guess")


def rule(settings):
    values = {name: 0.55 for name in FOLDS[settings["fold"]]}
    return ByPatient("balanced accuracy", values, dict.fromkeys(values, 0.5), "majority guess")


GRID = stages.Grid("sleep", {"space": ["samples", "features", "pictures"], "model": ["plain", "deep"]}, (0, 1, 2),
                   stages.split_hash(folds=PEOPLE), FOLDS)


@pytest.fixture(scope="module")
def board():
    return stages.leaderboard([*GRID.run(train, progress=False), GRID.run_heuristic(rule)], "balanced accuracy")


# the card

@pytest.mark.parametrize("name", WORKED)
def test_a_worked_idea_comes_back_from_the_form_unchanged(name):
    form = faces.edit_idea(name)
    assert (form.idea, form.deployment) == (WORKED[name].idea, WORKED[name].deployment)
    assert "every criterion" in repr(form) or set(faces.missing_figures(form.card)) == set(
        stages.assay(form.idea, form.deployment).open)


numbers = st.one_of(st.none(), st.floats(1e-6, 1e12, allow_nan=False))


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({
    "macs_per_item": numbers, "memory_mb": numbers, "spread": numbers, "best_prior": st.one_of(st.none(), st.floats(-1e6, 1e6)),
    "fitted_parameters": st.one_of(st.none(), st.integers(1, 10**9)), "causal": st.sampled_from([None, True, False]),
    "acts_on_it": st.sampled_from([None, True, False]), "look_ahead_s": st.one_of(st.none(), st.floats(0, 1e6)),
    "band_hz": st.one_of(st.none(), st.tuples(st.floats(0, 1), st.floats(2, 1e4))),
    "coverage_needed": st.one_of(st.none(), st.floats(0, 1)), "papers": st.lists(st.sampled_from(["a2020", "b2021"]), unique=True).map(tuple),
}))
def test_any_idea_survives_the_texts(values):
    card = replace(SLEEP, answer=None, idea=replace(SLEEP.idea, **values))
    again, wrong = faces.read_texts(faces.card_texts(card))
    assert not wrong and again == card


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(faces.card_texts(SLEEP))), st.text(max_size=30))
def test_any_text_in_any_field_is_read_or_explained_on_one_line(key, text):
    card, wrong = faces.read_texts(faces.card_texts(SLEEP) | {key: text})
    assert (card is None) == bool(wrong)
    assert all("\n" not in line.replace(text, "") and len(line) > 10 and set(wrong) <= set(faces.card_texts(SLEEP)) for line in wrong.values())


@pytest.mark.parametrize("key, text, words", [
    ("idea.latency_s", "-3", "finite and positive"), ("idea.latency_s", "1,5", "without unit or comma"),
    ("idea.latency_s", "", "must be said"), ("idea.subjects", "2.5", "whole number"), ("idea.coverage_needed", "80", "share"),
    ("idea.band_hz", "20 to 0.5", "rising"), ("idea.licence", "(MIT)", "SPDX"), ("idea.events", "5000", "more events"),
    ("idea.target", "0.2", "worse"), ("place.inputs", "BCG, fast", "known unit"), ("place.sources", "0", "positive"),
    ("signal.hop_s", "0", "positive"), ("idea.needed", "nan", "finite"), ("place.computes_at", "not known", "must be said"),
])
def test_a_wrong_field_has_its_own_line(key, text, words):
    form = faces.edit_idea(SLEEP)
    if key in form.fields and isinstance(form.fields[key], widgets.Dropdown) and text not in form.fields[key].options:
        pytest.fail("the test asks for what the list does not offer")
    form.fields[key].value = text
    assert words in form.lines[key].value, form.lines[key].value
    assert sum(bool(line.value) for line in form.lines.values()) == 1
    assert 'role="status"' in form.lines[key].value and "✗" in form.lines[key].value
    with pytest.raises(StageError, match="not complete"):
        _ = form.idea
    assert form.preview.value == ""


def titles(form) -> list[str]:
    "The labels on show."
    return [part.description for part in form.form.children if part.layout.display != "none" and getattr(part, "description", "")]


def test_only_what_applies_is_asked():
    form = faces.edit_idea(SLEEP)
    form.group.value = "Input"
    parts = form.form.children
    assert "Window (s) *" in titles(form) and "One study (MB) *" not in titles(form)
    form.fields["input.kind"].value = "study"
    assert "One study (MB) *" in titles(form) and "Window (s) *" not in titles(form)
    form.fields["study.megabytes"].value, form.fields["study.studies_per_day"].value = "120", "40"
    form.fields["input.modality"].value = "CT"
    assert form.idea.input == stages.study_input("CT", voxels=(120_000_000,), bits=8, studies_per_day=40)
    assert form.form.children is parts, "fields that are drawn anew lose the focus of the keyboard"


def test_the_form_says_what_is_unknown_and_what_would_tell():
    told = faces.missing_figures(replace(SLEEP, idea=replace(SLEEP.idea, macs_per_item=None, reference_blind=None, papers=())))
    assert told == {"causal latency": ("Multiply-accumulates an item",), "computing": ("Multiply-accumulates an item",),
                    "real time": ("Multiply-accumulates an item",), "reference": ("Reference read without the input",),
                    "prior benchmark": ("Papers",)}
    bare = stages.Deployment(name="somewhere", computes_at="cloud", sources=1)
    for what, names in faces.missing_figures(replace(SLEEP, deployment=bare)).items():
        assert names, what


def test_not_known_may_be_typed():
    form = faces.edit_idea(SLEEP)
    for text in ("not known", "?", "unknown", ""):
        form.fields["idea.subjects"].value = text
        assert form.idea.subjects is None and form.lines["idea.subjects"].value == ""


# the assay

def test_lights_have_signs_and_words_and_reject_stands_first():
    page = faces.lights_html(stages.assay(FALL.idea, FALL.deployment))
    lights = re.findall('<span class="light ([a-z]+)">(.) ([a-z]+)</span>', page)
    assert lights[0][2] == "reject" and {word for _, _, word in lights} >= {"pass", "reject", "unknown"}
    assert all(kind == word for kind, _, word in lights)


@pytest.mark.parametrize("name", WORKED)
def test_every_turning_point_turns(name):
    before = stages.assay(WORKED[name].idea, WORKED[name].deployment)
    for flip in faces.flip_points(before):
        step = 1.02 if flip.at > faces.assay_figures(before)[flip.figure] else 1 / 1.02
        beyond = faces.move_figures(before, {flip.figure: max(flip.at * step, 1) if flip.unit == "people" else flip.at * step})
        assert {check.what: check.verdict for check in beyond.checks}.get(flip.what, "not asked") == flip.after, flip


def test_sliders_move_the_assay_and_nothing_else(store):
    view = faces.view_assay(FALL, store)
    for name, slider in view.sliders.items():
        lights, old = view.lights.value, slider.value
        slider.value = old * 3
        assert set(faces.assay_figures(view.assay).items()) != set(faces.assay_figures(view.before).items()), name
        slider.value = old
        assert view.lights.value == lights
    assert view.before.idea is FALL.idea and store.records() == ()


def test_unknown_figures_cannot_be_moved_and_are_named():
    view = faces.view_assay(HEART)
    assert "work an item" not in view.sliders and "work an item" in html_of(view)
    with pytest.raises(StageError, match="cannot be moved"):
        faces.move_figures(view.before, {"work an item": 5})


@pytest.mark.parametrize("fill, words", [
    ({}, "No decision is chosen"), ({"accept": "reject"}, "A reason is missing"),
    ({"accept": "reject", "reason": "   ", "by": "x"}, "A reason is missing"),
    ({"accept": "reject", "reason": "why"}, "name of who decides"),
    ({"accept": "accept", "reason": "why", "by": "x"}, "The assay rejected this idea"),
])
def test_a_decision_without_its_parts_is_not_recorded(store, fill, words):
    view = faces.view_assay(FALL, store)
    for name, value in fill.items():
        view.form[name].value = value
    view.record.click()
    assert words in view.message.value and view.decision is None and store.records() == ()


@pytest.mark.parametrize("choice, state", [("accept", "goes on to level 2"), ("reject", "rejected at level 1"), ("defer", "deferred at level 1")])
def test_each_decision_is_recorded_as_it_was_chosen(store, choice, state):
    view = faces.view_assay(SLEEP, store)
    view.form["accept"].value, view.form["reason"].value, view.form["by"].value = choice, "said so", "the team"
    view.record.click()
    assert [one.state for one in stages.read_decisions(store)] == [state] == [view.decision.state]


def test_an_override_is_recorded_in_words(store):
    view = faces.view_assay(FALL, store)
    for name, value in {"accept": "accept", "reason": "a study", "by": "x", "override": "on a larger chip"}.items():
        view.form[name].value = value
    view.record.click()
    assert stages.read_decisions(store)[0].override == "on a larger chip"


# the board

def test_the_board_follows_the_store(store):
    stages.judge(stages.worked_ideas()[:4], store, by="the team")
    shown = faces.show_board(store, stages.worked_ideas())
    assert len(shown.tiles) == 10 and sum(len(column.children) - 1 for column in shown.columns.children) == 10
    assert shown.reasons.value.count("rejected at level") == 3
    faces.open_tile(shown, "wrist-fall-alarm")
    view = shown.opened.children[1]
    view.form["accept"].value, view.form["reason"].value, view.form["by"].value = "reject", HOSTILE, "x"
    view.record.click()
    assert next(tile.column for tile in shown.tiles if tile.name == "wrist-fall-alarm") == "rejected"
    assert harmless(html_of(shown)) and "&lt;script&gt;" in shown.reasons.value


def test_a_card_is_read_back_from_the_store_alone(store):
    stages.judge(stages.worked_ideas(), store, by="the team")
    assert {tile.name: (tile.card.idea, tile.card.deployment) for tile in faces.board_tiles(store)} == {
        name: (card.idea, card.deployment) for name, card in WORKED.items()}


def test_a_decision_without_its_card_still_has_a_tile(store):
    whole = stages.judge([SLEEP], store, by="x").rows[0].decision
    body = {field.name: getattr(whole, field.name) for field in fields(whole)} | {"idea": "old", "evidence": []}
    store.append("decision", "old", body)
    shown = faces.show_board(store)
    faces.open_tile(shown, "old")
    assert next(tile for tile in shown.tiles if tile.name == "old").card is None and "does not hold its figures" in html_of(shown.opened)


def test_the_last_decision_counts(store):
    for accept, level in ((None, 1), (True, 1), (True, 2)):
        stages.decide(store, SLEEP.idea, stages.assay(SLEEP.idea, SLEEP.deployment), accept=accept, level=level, reason="r", by="b")
    tile, = faces.board_tiles(store)
    assert (tile.column, len(tile.decisions)) == ("accepted", 3)


# the grid

def test_the_builder_counts_what_the_walk_runs(store):
    count = faces.count_trainings(GRID)
    calls = []
    found = stages.walk(GRID, lambda asked: (calls.append(asked), train(asked))[1], rule, "balanced accuracy", progress=False)
    assert found.taken <= count.path and count.cells == found.full == 6 and len(calls) <= count.path_trainings
    whole = replace(GRID, factors={"space": ["samples", "features"], "model": ["plain", "deep"]})
    calls.clear()
    stages.walk(whole, lambda asked: (calls.append(asked), train(asked))[1], rule, "balanced accuracy", progress=False)
    assert len(calls) == faces.count_trainings(whole).path_trainings


def test_what_is_ticked_is_the_grid():
    builder = faces.build_grid("sleep", GRID.factors, GRID.split_hash, folds=FOLDS, seconds=30)
    assert builder.grid == GRID and "54 trainings, about 27 min" in builder.readout.value
    builder.boxes["space"][0][0].value = False
    assert builder.grid.factors["space"] == ["features", "pictures"] and "36 trainings" in builder.readout.value
    builder.seconds.value = 0
    assert "about" not in builder.readout.value
    builder.boxes["model"][1].value = f"{HOSTILE}, 3"
    assert harmless(html_of(builder)) and builder.grid.factors["model"][-1] == 3


# the leaderboard

def test_narrowing_never_changes_the_claim(board):
    view = faces.view_leaderboard(board, grid=GRID)
    said = view.readout.value
    assert board.split_hash in said and "openings of the test set unknown" in said
    for control in view.filters.values():
        for value in range(-1, len(control.options) - 1):
            control.value = value
            assert view.readout.value == said
    rows = {row["run"]: row["verdict"] for row in board.table()}
    assert all(rows[row["run"]] == row["verdict"] for row in faces.sorted_rows(board, "space", {"model": "plain"}))


def test_every_view_draws_or_says_why_not(board):
    view, seen = faces.view_leaderboard(board, grid=GRID), set()
    for name in faces.VIEWS:
        view.view.value = name
        assert view.message.value == "" and bytes(view.picture.value) not in seen
        seen.add(bytes(view.picture.value))
    bare = replace(board, runs=tuple(replace(run, people=()) for run in board.runs), heuristics=())
    view = faces.view_leaderboard(bare)
    view.view.value = "ranks"
    assert "No ranks of this" in view.message.value and view.picture.layout.display == "none"
    view.view.value = "intervals"
    assert view.message.value == "" and view.picture.layout.display == ""


def test_only_rows_that_differ_in_one_thing_are_offered(board):
    view = faces.view_leaderboard(board)
    view.view.value = "paired seeds"
    for one in view.controls["one"].options:
        view.controls["one"].value = one
        for other in view.controls["other"].options:
            view.controls["other"].value = other
            assert view.message.value == "", (one, other)


# failures

def a_window(row, unit="mV"):
    times = np.arange(0, 10, 0.05)
    draw = np.random.default_rng(int(row["position"]))
    return {"samples": draw.normal(size=len(times)), "times_s": times, "saliency": np.exp(-((times - row["position"]) ** 2)),
            "truth": "asleep", "answer": "awake", "probability": 0.8, "unit": unit}


def failures(count=8):
    return pd.DataFrame({"person": [f"p{number}" for number in range(count)], "score": np.linspace(0.1, 0.9, count),
                         "position": range(count), "right": [number >= 3 for number in range(count)],
                         "tags": [("moved",) if number < 3 else () for number in range(count)]})


def test_previous_and_next_stay_within_the_tag():
    gallery = faces.browse_signal_failures(failures(), a_window)
    gallery.tag.value = "moved"
    for _ in range(9):
        gallery.following.click()
    assert "p2" in gallery.readout.value and gallery.place.value == gallery.place.max == 3
    for _ in range(9):
        gallery.previous.click()
    assert "p0" in gallery.readout.value
    gallery.tag.value = "all"
    assert gallery.place.max == 8


def test_a_window_that_cannot_be_shown_does_not_stop_the_browser():
    def sometimes(row):
        if row["position"] == 1:
            raise ModelError("bad_option", "There is no such window.", "score it first")
        return a_window(row)

    gallery = faces.browse_signal_failures(failures(), sometimes)
    gallery.following.click()
    assert "cannot be shown: There is no such window." in gallery.readout.value
    gallery.following.click()
    assert "p2" in gallery.readout.value and "cannot" not in gallery.readout.value


def test_a_tag_becomes_the_next_idea_only_if_it_tells_something(store):
    follow = faces.offer_next_idea(faces.browse_signal_failures(failures(), a_window), SLEEP.idea, store)
    follow.make.click()
    assert follow.draft is None and store.records() == ()
    follow.gallery.tag.value = "moved"
    follow.make.click()
    body = store.latest("failure tag", follow.draft.name).body
    assert (body["share"], body["elsewhere"], body["cases"], body["tag"]) == (1.0, 0.0, 3, "moved")
    assert faces.edit_idea(stages.Card(idea=follow.draft, deployment=SLEEP.deployment)).idea == follow.draft


# everything that is shown

@pytest.fixture(scope="module")
def shown(board, tmp_path_factory):
    "Each widget with its static twin, full of what a hostile person would type."
    card = sly(HEART, licence="MIT")
    store = stages.Store(tmp_path_factory.mktemp("shown") / "project.sqlite")
    judged = stages.assay(card.idea, card.deployment)
    plain = replace(card, idea=replace(card.idea, name="plain"))  # the store takes one line, and this is one
    stages.decide(store, plain.idea, stages.assay(plain.idea, card.deployment), accept=None, level=1, reason=HOSTILE, by=HOSTILE)
    table = failures().assign(person=HOSTILE, tags=[(HOSTILE,)] * 8)
    factors = {"space": [HOSTILE, "b"], "model": ["a"]}
    grid = stages.Grid(HOSTILE, factors, (0,), HOSTILE)
    shown_board = faces.show_board(store, [card])
    faces.open_tile(shown_board, HOSTILE)
    return {
        "card": (faces.edit_idea(card), faces.idea_strip(card)), "assay": (faces.view_assay(card, store), faces.assay_strip(judged)),
        "board": (shown_board, faces.board_strip(shown_board.tiles)),
        "grid": (faces.build_grid(HOSTILE, factors, HOSTILE, seconds=3.0), faces.grid_strip(grid, 3.0)),
        "leaderboard": (faces.view_leaderboard(board, grid=GRID), faces.leaderboard_strip(board, GRID)),
        "failures": (faces.browse_signal_failures(table, lambda row: {**a_window(row), "truth": HOSTILE}, HOSTILE),
                     faces.signal_failure_strip(table, a_window)),
        "next idea": (faces.offer_next_idea(faces.browse_signal_failures(table, a_window), HEART.idea, store),
                      faces.tag_rows(faces.browse_signal_failures(table, a_window))),
    }


KINDS = ["card", "assay", "board", "grid", "leaderboard", "failures", "next idea"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_people_type_is_shown_and_never_run(shown, kind):
    box, twin = shown[kind]
    assert harmless(html_of(box)) and harmless(twin) and "&lt;script&gt;" in html_of(box) + twin
    for part in every_widget(box):
        assert not getattr(part, "description_allow_html", False)


@pytest.mark.parametrize("kind", KINDS)
def test_only_core_widgets_with_names_are_used(shown, kind):
    for part in every_widget(shown[kind][0]):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets.")), type(part)
        if isinstance(part, widgets.ValueWidget) and not isinstance(part, widgets.HTML | widgets.Image | widgets.ToggleButtons):
            assert part.description, part
        if isinstance(part, widgets.Button):
            assert part.description and not part.disabled


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_picture_with_words_goes_with_each_widget(shown, kind):
    data, about = shown[kind][0]._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and len(data["image/png"]) < 60 * 1024
    assert len(about["image/png"]["alt"]) > 20 and len(data["text/plain"]) < 1500


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_a_twin_have_words(shown, kind):
    twin = shown[kind][1]
    assert all(re.search('alt="[^"]+"', tag) for tag in re.findall("<img[^>]*>", re.sub("&lt;.*?&gt;", "", twin)))
    assert not re.search(r'(src|href)="(?!data:image)', twin)


def test_every_name_is_loaded_when_it_is_first_used():
    for name in ("edit_idea", "view_assay", "show_board", "build_grid", "view_leaderboard", "browse_signal_failures", "offer_next_idea"):
        assert name in dir(faces) and callable(getattr(faces, name))


@pytest.mark.parametrize("call", [
    lambda: faces.edit_idea("no-such"), lambda: faces.view_assay(None), lambda: faces.board_tiles("x"),
    lambda: faces.build_grid("x", {}, "s"), lambda: faces.view_leaderboard(3), lambda: faces.browse_signal_failures(3, a_window),
    lambda: faces.offer_next_idea(3, 4, 5), lambda: faces.read_texts({}), lambda: faces.move_figures(stages.assay(
        SLEEP.idea, SLEEP.deployment), {"colour": 1}), lambda: faces.show_board(3),
])
def test_wrong_input_gets_one_clear_refusal(call):
    with pytest.raises(MedkitError) as caught:
        call()
    assert caught.value.hint and caught.value.message.endswith(".")


# the browser

SETUP = """import json
import numpy as np, pandas as pd
from dataclasses import replace
from medkit import stages, widgets as faces
from medkit.learning.report import ByPatient
HOSTILE = {hostile!r}
cards = stages.worked_ideas()
sly = replace(cards[-1], idea=replace(cards[-1].idea, name=HOSTILE, question=HOSTILE, users=HOSTILE))
store = stages.Store("project.sqlite")
_ = stages.judge(cards[:4], store, by="the team")
people = [f"p{{number}}" for number in range(9)]
folds = (tuple(people[:4]), tuple(people[4:]))

def train(asked):
    level = 0.6 + 0.1 * (asked["model"] == "deep") + 0.01 * asked["seed"]
    values = {{name: level + 0.01 * people.index(name) for name in folds[asked["fold"]]}}
    return ByPatient("balanced accuracy", values, dict.fromkeys(values, 0.5), "majority guess")

grid = stages.Grid("sleep", {{"space": ["samples", "features"], "model": ["plain", "deep"]}}, (0, 1, 2), "a1b2c3", folds)
board = stages.leaderboard(grid.run(train, progress=False), "balanced accuracy")
table = pd.DataFrame({{"person": people, "score": np.linspace(0.1, 0.9, 9), "right": [False] * 3 + [True] * 6,
                      "tags": [("moved",)] * 3 + [()] * 6}})
times = np.arange(0, 10, 0.05)

def window_of(row):
    draw = np.random.default_rng(int(row["person"][1:]))
    return faces.SignalWindow(draw.normal(size=200), times, np.exp(-(times - 4) ** 2), "asleep", "awake", 0.8, "mV")
"""
CELLS = [
    "faces.edit_idea(cards[-1])", "faces.show_board(store, [*cards, sly])",
    "faces.build_grid('sleep', grid.factors, 'a1b2c3', folds=folds, seconds=30, train=train)",
    "faces.view_leaderboard(board, grid=grid)",
    "faces.offer_next_idea(faces.browse_signal_failures(table, window_of), cards[3].idea, store)",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory, playwright):
    folder = tmp_path_factory.mktemp("lab")
    with page_of(folder, playwright, notebook_of(folder, SETUP.format(hostile=HOSTILE), *CELLS)) as opened:
        opened.get_by_role("button", name="Make this tag the next idea").wait_for(timeout=120_000)
        yield opened


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
class TestInTheBrowser:
    "With keys only, as somebody without a mouse."

    def test_a_card_is_mended_by_keyboard(self, page):
        cell = cell_of(page, "faces.edit_idea")
        press_button(page, cell, "Model", "Space")
        field = cell.get_by_label("Answer within (s) *")
        field.focus()
        page.keyboard.press("Control+a")
        page.keyboard.type("soon")
        page.keyboard.press("Tab")
        wait_for_words(page, cell, "This is not a number. Found: soon.")
        assert page.evaluate("() => document.activeElement.tagName") == "SELECT", "Tab goes on to the next field"
        keep_screenshot(page, "idea_card")
        field.focus()
        page.keyboard.press("Control+a")
        page.keyboard.type("600")
        page.keyboard.press("Enter")
        wait_for_words(page, cell, "The card: complete; still open")
        assert nothing_in_the_way(page)

    def test_a_tile_opens_and_a_decision_needs_a_reason(self, page):
        cell = cell_of(page, "faces.show_board")
        tile = cell.get_by_role("button", name="xray-triage")
        tile.focus()
        page.keyboard.press("Enter")
        wait_for_words(page, cell, "Opened below: Tile 'xray-triage'")
        cell.get_by_label("Decision *").select_option("reject")
        press_button(page, cell, "Record the decision", "Enter")
        wait_for_words(page, cell, "A reason is missing.")
        for label, words in (("Reason *", "The licence forbids it."), ("Decided by *", "the team")):
            cell.get_by_label(label).focus()
            page.keyboard.type(words)
            page.keyboard.press("Tab")
        press_button(page, cell, "Record the decision", "Space")
        wait_for_words(page, cell, "✓ Recorded")
        cell.get_by_text("rejected (4)").wait_for()
        cell.get_by_text("The licence forbids it.").first.wait_for()
        keep_screenshot(page, "board")

    def test_a_slider_says_what_flips(self, page):
        cell = cell_of(page, "faces.show_board")
        cell.get_by_role("button", name="xray-triage").focus()
        page.keyboard.press("Enter")
        wait_for_words(page, cell, "Opened below: Tile 'xray-triage'")
        labelled(cell, "Subjects (people)").locator(".noUi-handle").focus()
        for _ in range(6):
            page.keyboard.press("PageDown")
        wait_for_words(page, cell, "sample size: ✓ pass becomes ✗ reject")
        press_button(page, cell, "As on the card", "Enter")
        page.locator("[role=status]", has_text="becomes").first.wait_for(state="detached")
        keep_screenshot(page, "assay")

    def test_a_box_changes_the_count(self, page):
        cell = cell_of(page, "faces.build_grid")
        wait_for_words(page, cell, "24 trainings, about 12 min")
        cell.get_by_label("features").focus()
        page.keyboard.press("Space")
        wait_for_words(page, cell, "12 trainings, about 6 min")
        press_button(page, cell, "Time one training", "Enter")
        wait_for_words(page, cell, "Timed: one training took under 1 s")
        keep_screenshot(page, "grid")

    def test_the_board_turns(self, page):
        cell = cell_of(page, "faces.view_leaderboard")
        picture = cell.locator("img.widget-image, img.jupyter-widget-image").first
        seen = {picture.evaluate(PICTURE_BYTES)}
        for name in ("heat map", "paired seeds", "ranks"):
            press_button(page, cell, name, "Space")
            seen.add(wait_for_picture(page, picture, seen, name))
            keep_screenshot(page, name.replace(" ", "_"))

    def test_a_failure_becomes_an_idea(self, page):
        cell = cell_of(page, "faces.offer_next_idea")
        press_button(page, cell, "Next", "Enter")
        wait_for_words(page, cell, "p1, score")
        cell.get_by_label("With the tag").select_option("moved")
        wait_for_words(page, cell, "100% of 3 failing cases")
        press_button(page, cell, "Make this tag the next idea", "Space")
        wait_for_words(page, cell, "Drafted and recorded: bcg-sleep-wake: moved")
        keep_screenshot(page, "next_idea")

    def test_no_label_is_cut_off_and_nothing_hostile_ran(self, page):
        cut = cut_labels(page)
        for group in ("Question", "Score", "Input", "People", "Place"):
            press_button(page, cell_of(page, "faces.edit_idea"), group, "Enter")
            page.wait_for_timeout(400)
            cut += cut_labels(page)
        assert cut == []
        assert page.evaluate("() => window.struck === undefined"), "text of a card was run"
        assert nothing_in_the_way(page)
