"""Ideas: criteria that never count the unknown as passed, decisions with evidence, probes with a rule written first, one page."""

import json
import re
import shutil
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from chromium import blank_page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkit import stages
from medkit.errors import DataError, MedkitError, StageError
from medkit.files import shipped

SHIPPED = shipped("data/ideas/worked.toml")
HOSTILE = "<script>alert('x')</script>"
WORKED = {card.idea.name: card for card in stages.worked_ideas()}
WHOLE = WORKED["bcg-sleep-wake"]  # every criterion is answered


@pytest.fixture
def store(tmp_path):
    return stages.Store(tmp_path / "project.sqlite")


def verdicts(idea, place):
    return {check.what: check.verdict for check in stages.assay(idea, place).checks}


# criteria

@pytest.mark.parametrize("name", WORKED)
def test_the_assay_says_what_the_worked_answer_says(name):
    card = WORKED[name]
    judged = stages.assay(card.idea, card.deployment)
    assert card.answer.agrees(judged), judged
    assert len(judged.checks) >= 11


def test_the_worked_ideas_are_ten_with_the_walk_of_the_intern_first():
    decided = [card.answer.decided for card in WORKED.values()]
    assert len(decided) == 10 and decided[:4] == ["reject", "reject", "reject", "accept"] and "defer" in decided
    assert [card.answer.level for card in WORKED.values()][:4] == [1, 1, 2, 2]
    assert sum(card.idea.input.modality == "CT" for card in WORKED.values()) == 3
    assert {card.idea.input.modality for card in list(WORKED.values())[:4]} == {"BCG"}


BLANKS = {
    ("idea", "band_hz"): "sampling", ("idea", "causal"): "causal latency", ("idea", "fitted_parameters"): "sample size",
    ("idea", "subjects"): "sample size", ("idea", "expected_r2"): "sample size", ("idea", "reference_blind"): "reference",
    ("idea", "labels"): "reference", ("idea", "licence"): "licence", ("idea", "decision"): "clinical need",
    ("idea", "acts_on_it"): "clinical need", ("idea", "best_prior"): "prior benchmark", ("idea", "papers"): "prior benchmark",
    ("idea", "coverage_needed"): "coverage", ("idea", "coverage_expected"): "coverage", ("place", "inputs"): "inputs",
    ("place", "alarm_s"): "causal latency", ("place", "licences"): "licence",
}


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: blank[1])
def test_a_blank_criterion_is_open_and_never_passed(store, blank):
    whose, field = blank
    idea, place = WHOLE.idea, WHOLE.deployment
    assert stages.assay(idea, place).open == () and stages.assay(idea, place).verdict == "pass"
    empty = {"labels": "", "licence": "", "decision": "", "papers": ()}.get(field)
    idea = replace(idea, **{field: empty}) if whose == "idea" else idea
    place = replace(place, **{field: empty}) if whose == "place" else place
    judged = stages.assay(idea, place)
    assert BLANKS[blank] in judged.open and verdicts(idea, place)[BLANKS[blank]] == "unknown"
    assert BLANKS[blank] in repr(judged) and judged.verdict in ("pass", "unknown")
    with pytest.raises(StageError, match="still open"):
        stages.decide(store, idea, judged, accept=True, level=2, reason="we like it", by="team")
    stages.decide(store, idea, judged, accept=None, level=2, reason="find out first", by="team")
    assert stages.read_decisions(store)[-1].state == "deferred at level 2"


@pytest.mark.parametrize("change, what", [
    ({"also_needs": ("ECG",)}, "inputs"), ({"band_hz": (1.0, 126.0)}, "sampling"), ({"causal": False, "look_ahead_s": None}, "causal latency"),
    ({"fitted_parameters": 10}, "sample size"), ({"reference_blind": False}, "reference"), ({"licence": "CC-BY-NC-4.0"}, "licence"),
    ({"acts_on_it": False}, "clinical need"), ({"best_prior": 0.89}, "prior benchmark"), ({"coverage_expected": 0.79}, "coverage"),
    ({"macs_per_item": 1e12}, "computing"), ({"memory_mb": 0.6}, "memory"), ({"patients": 36}, "patients"), ({"naive": 0.95}, "patients"),
])
def test_each_criterion_can_end_an_idea(change, what):
    idea = replace(WHOLE.idea, **change)
    assert verdicts(idea, WHOLE.deployment)[what] == "reject"
    assert stages.assay(idea, WHOLE.deployment).verdict == "reject"


def test_limits_are_exact():
    feed = stages.Feed(modality="BCG", sampling_rate_hz=40, jitter_ms=100 / (2 * np.pi * 20))
    place = replace(WHOLE.deployment, inputs=(feed,), alarm_s=330.06)
    found = verdicts(WHOLE.idea, place)
    assert (found["sampling"], found["jitter"], found["causal latency"]) == ("pass", "pass", "pass")
    place = replace(place, inputs=(replace(feed, sampling_rate_hz=39.9, jitter_ms=feed.jitter_ms * 1.01),), alarm_s=330.05)
    found = verdicts(WHOLE.idea, place)
    assert (found["sampling"], found["jitter"], found["causal latency"]) == ("reject", "reject", "reject")


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.floats(0.01, 0.99), st.integers(1, 100))
def test_more_parameters_need_more_people(parameters, share, more):
    assert stages.subjects_needed(parameters + more, event_share=share) > stages.subjects_needed(parameters, event_share=share)
    assert stages.subjects_needed(parameters, event_share=share) == stages.subjects_needed(parameters, event_share=1 - share)


@pytest.mark.parametrize("licence, fits", [
    ("MIT", True), ("mit", True), ("GPL-3.0-only", False), ("MIT AND CC-BY-4.0", True), ("MIT AND GPL-3.0-only", False),
    ("GPL-3.0-only OR MIT", True), ("MIT AND GPL-3.0-only OR CC-BY-4.0", True), ("MIT-0", False),
])
def test_licences(licence, fits):
    assert stages.may_use(licence, ("MIT", "CC-BY-4.0")) is fits


JUNK = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-5, 5), st.text(max_size=3), st.just(()), st.just((1, 2)),
                 st.just([1]), st.just({}))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([field.name for field in fields(stages.Idea)]), JUNK)
def test_any_junk_in_an_idea_is_refused_in_words_or_assayed(field, value):
    try:
        idea = replace(WHOLE.idea, **{field: value})
        assert stages.assay(idea, WHOLE.deployment).verdict in ("pass", "reject", "unknown")
    except StageError as error:
        assert error.hint


@pytest.mark.parametrize("share", [0.89, 0.9, 0.99, 1.0])
def test_a_model_that_explains_nearly_all_is_still_assayed(share):
    assert verdicts(replace(WHOLE.idea, expected_r2=share), WHOLE.deployment)["sample size"] == "pass"


# decisions

def test_evidence_is_named_by_its_hash(store, tmp_path):
    judged = stages.assay(WHOLE.idea, WHOLE.deployment)
    note = tmp_path / "note.md"
    note.write_text("seen")
    record = store.append("note", "x", {"n": 1})
    words = {"level": 2, "reason": "good", "by": "team"}
    stages.decide(store, WHOLE.idea, judged, accept=True, evidence=[note, record], **words)
    found, = stages.read_decisions(store)
    assert found.evidence[1].endswith(record.checksum) and "note.md sha256:" in found.evidence[0]
    assert str(tmp_path) not in json.dumps(store.records("decision")[0].body)
    with pytest.raises(DataError, match="missing"):
        stages.decide(store, WHOLE.idea, judged, accept=True, evidence=[tmp_path / "gone"], **words)
    assert len(stages.read_decisions(store)) == 1


def test_a_decision_of_the_first_medkit_is_still_read(store):
    old = {"idea": "a", "deployment": "b", "accept": True, "level": 1, "reason": "r", "by": "t", "assay": "pass", "override": ""}
    store.append("decision", "a", old)
    assert stages.read_decisions(store)[0].evidence == ()
    store.append("decision", "a", {"idea": "a"})
    with pytest.raises(StageError, match="not a whole decision"):
        stages.read_decisions(store)


# cards

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_of_cards_is_an_error_of_ours(tmp_path, data):
    text = SHIPPED.read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(1, 200))
    file = tmp_path / "cards.toml"
    file.write_text(text[:start] + data.draw(st.text(max_size=5).filter(lambda new: new.isprintable())) + text[start + length:])
    try:
        for card in stages.read_cards(file):
            stages.assay(card.idea, card.deployment)
    except MedkitError as error:
        assert error.hint


def test_the_papers_that_worked_ideas_name_are_shipped():
    literature = stages.read_literature(SHIPPED.parent)
    for card in WORKED.values():
        assert len(literature.of(card.idea)) == len(card.idea.papers)


# probes

def sleepers(gain, patients=24, seed=0):
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients), 20)
    awake = (rng.random(people.size) < 0.4).astype(int)
    return pd.DataFrame({"a": gain * awake + rng.normal(size=people.size), "b": rng.normal(size=people.size)}), awake, people


PLAN = stages.Probe(idea="x", metric="AUROC", rules=(stages.KillRule(row="model", bar="naive", by=0.05),), time_box_s=60, rounds=100)


def test_the_rule_must_be_there_before_the_run(store):
    table = sleepers(1.5)
    with pytest.raises(StageError, match="No plan"):
        stages.run_probe(store, PLAN, *table)
    stages.write_plan(store, PLAN)
    softer = replace(PLAN, rules=(stages.KillRule(row="model", bar="naive"),))
    with pytest.raises(StageError, match="differs"):
        stages.run_probe(store, softer, *table)
    result = stages.run_probe(store, PLAN, *table)
    assert result.verdict == "go on" and result.record.body["plan"] == store.records("probe plan")[0].checksum
    stages.write_plan(store, softer)  # allowed, and seen: the second look at this table is counted
    assert stages.run_probe(store, softer, *table).earlier == 1


@pytest.mark.parametrize("gain, verdict", [(0.0, "kill"), (1.5, "go on")])
def test_the_kill_rule_judges(store, gain, verdict):
    stages.write_plan(store, PLAN)
    assert stages.run_probe(store, PLAN, *sleepers(gain)).verdict == verdict


def test_a_patient_is_never_in_training_and_test(store):
    "A feature that tells who it is, and a label that is the patient's: only a split by row would find it."
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(30), 20)
    label = rng.permutation(np.arange(30) % 2)[people]
    who = pd.get_dummies(people).astype(float)
    stages.write_plan(store, PLAN)
    rows = {row.name: row.value for row in stages.run_probe(store, PLAN, who, label, people).rows}
    assert rows["oracle"] > 0.99 and rows["model"] < 0.7


def test_features_that_mean_nothing_are_killed_in_most_draws(store):
    stages.write_plan(store, PLAN)
    verdicts = [stages.run_probe(store, PLAN, *sleepers(0.0, seed=seed)).verdict for seed in range(6)]
    assert verdicts.count("go on") == 0 and verdicts.count("kill") >= 5


def test_the_store_learns_no_patient(store):
    features, labels, people = sleepers(1.0)
    stages.write_plan(store, PLAN)
    stages.run_probe(store, PLAN, features, labels, [f"MUELLER-{number}" for number in people])
    assert "MUELLER" not in json.dumps([record.body for record in store.records()])


def test_missing_values_and_constants_are_borne(store):
    features, labels, people = sleepers(1.5)
    features.loc[::7, "a"] = np.nan
    features["c"] = 3.0
    stages.write_plan(store, PLAN)
    assert stages.run_probe(store, PLAN, features, labels, people).verdict == "go on"


@pytest.mark.parametrize("change", [
    lambda f, y, p: (f, y[:-1], p), lambda f, y, p: (f, y, p[:3]), lambda f, y, p: (f, y * 0, p), lambda f, y, p: (f, y * 2, p),
    lambda f, y, p: (f * np.inf, y, p), lambda f, y, p: (f, y * np.nan, p), lambda f, y, p: (f.assign(a=np.nan), y, p),
    lambda f, y, p: (f.assign(a="x"), y, p), lambda f, y, p: (f, y, p * 0), lambda f, y, p: (f.iloc[:, :0], y, p),
    lambda f, y, p: (None, y, p), lambda f, y, p: (3, y, p),
])
def test_a_table_that_cannot_be_probed_is_refused(store, change):
    stages.write_plan(store, PLAN)
    with pytest.raises(MedkitError):
        stages.run_probe(store, PLAN, *change(*sleepers(1.0)))
    assert store.records("probe result") == ()


# literature

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C",), exclude_characters="{}\\\"@"), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex("[A-Za-z0-9][A-Za-z0-9_.+-]{0,8}", fullmatch=True), st.dictionaries(
    st.sampled_from(["title", "author", "year", "doi"]), WORDS.map(str.strip), max_size=4), max_size=4))
def test_a_bibliography_comes_back_the_same(tmp_path, entries):
    papers = tuple(stages.Paper(key, "article", values) for key, values in entries.items())
    literature = stages.Literature(papers, tuple(stages.Note(paper.key, f"# note\n{paper.key}\n") for paper in papers))
    folder = tmp_path / "reading"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    back = stages.read_literature(stages.write_literature(literature, folder))
    assert back.papers == literature.papers and set(back.notes) == set(literature.notes)


def test_nested_braces_and_accents_come_back(tmp_path):
    paper = stages.Paper("m2020", "article", {"title": "The {BCG} of {{M}\\\"uller}", "author": "Müller, A and {The Group}", "note": "a, b = c # d"})
    stages.write_literature(stages.Literature((paper,)), tmp_path)
    assert stages.read_literature(tmp_path).papers == (paper,)


# the page

def deck(store, **changes):
    idea = replace(WHOLE.idea, **changes)
    judged = stages.assay(idea, WHOLE.deployment)
    stages.decide(store, idea, judged, accept=None, level=2, reason=HOSTILE, by=HOSTILE)
    stages.discuss(store, idea, who=HOSTILE, objection=HOSTILE, decision="open")
    return stages.present(idea, judged, decisions=stages.read_decisions(store), discussions=stages.read_discussions(store))


def test_the_page_holds_no_script_and_loads_nothing(store, tmp_path):
    shown = deck(store, question=HOSTILE, users=HOSTILE, decision=HOSTILE, labels=HOSTILE, output=HOSTILE, metric=HOSTILE)
    assert HOSTILE not in shown.page and "&lt;script&gt;" in shown.page and HOSTILE not in shown._repr_html_()
    assert not re.search(r'(src|href)="(?!data:image|https?://)', shown.page) and 'lang="en"' in shown.page
    assert all(re.search('alt="[^"]+"', tag) for tag in re.findall("<img[^>]*>", shown.page))
    assert shown.save(tmp_path / "page.html").read_text(encoding="utf-8") == shown.page


def test_every_light_has_its_word(store):
    page = deck(store, licence="", acts_on_it=False).page
    lights = re.findall('<span class="light ([a-z]+)">(.) ([a-z]+)</span>', page)
    assert {kind for kind, *_ in lights} == {"pass", "reject", "unknown"}
    assert all(kind == word and sign == {"pass": "✓", "reject": "✗", "unknown": "?"}[kind] for kind, sign, word in lights)


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_page_prints_on_one_sheet_and_asks_nobody(store, tmp_path, playwright):
    path, heard = deck(store).save(tmp_path / "page.html"), []
    with blank_page(playwright) as page:
        page.on("console", lambda message: heard.append(message.text))
        page.goto(path.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        shown = page.evaluate("document.images[0].naturalWidth")
        sheets = len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(prefer_css_page_size=True)))
    heard += [url for url in page.asked if not url.startswith(("file:", "data:"))]
    assert (wide, sheets, heard) == (True, 1, []) and shown > 100
