"""Windows of signals: leaks refused, shapes, seeds, saving, rules as signals has them, scores by person, failures."""

import json

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback

from medkit.errors import MedkitError, ModelError
from medkit.files import seal
from medkit.learning import (
    ByPatient, SignalCase, SignalTrainer, SignalView, Split, evaluate, explain_window, fit_baseline, fit_bed_rule, fit_feature_rule,
    load_learner, method_scores, patient_folds, patient_split, person_failures, person_scores, predict, read_nights, save_learner,
    signal_learner, signal_loaders, split_nights, train, window_failures, wrist_rule,
)
from medkit.signals import (
    FEATURES, Recording, activity_counts, clean, extract_features, make_windows, picture, simulate_night,
    simulate_rhythm, sleep_wake,
)

torch.set_num_threads(1)
RAW = SignalView("raw", 3, 5, ((0.1, 0.7), (1, 2.2)))
CLASSES = ("wake", "sleep")


@pytest.fixture(scope="module")
def nights():
    return [simulate_night(seed, hours=1, sampling_rate_hz=25) for seed in range(20, 29)]


@pytest.fixture(scope="module")
def split(nights):
    return patient_split([night.person for night in nights], valid=0.2, test=0.3, seed=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def raw(nights, split):
    return signal_loaders(nights, split, RAW)


@pytest.fixture(scope="module")
def features(nights, cache):
    return read_nights(nights, SignalView("features", context=3), cache=cache)


@pytest.fixture(scope="module")
def trained(raw):
    learn = quiet(signal_learner(raw, "MultiHeadCNN", width=4))
    train(learn, 3)
    return learn


def quiet(learn):
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


def own_case(person="Ada", seconds=600, window_s=20.0, seed=0, labels=None, samples=None, hop_s=None):
    noise = np.random.default_rng(seed).normal(size=(1, int(seconds * 40))) if samples is None else samples
    recording = Recording(noise, 40.0, ("bed",), ("V",))
    windows = make_windows(recording, person=person, night="1", window_s=window_s, hop_s=hop_s)
    return SignalCase(recording, windows, np.arange(len(windows)) % 2 if labels is None else labels, ("no", "yes"))


# --- spaces -----------------------------------------------------------------------------------------------------------

def test_a_space_holds_what_signals_gives(nights):
    night, windows = nights[0], make_windows(nights[0].bed, person=nights[0].person, night="1")
    found = read_nights([night], SignalView("features", normalise="none"))
    assert np.allclose(found.tables[0], extract_features(night.bed, windows).values.astype(np.float32), equal_nan=True)
    drawn = picture(night.bed, windows, "scalogram", size=(16, 24))
    seen = read_nights([night], SignalView("scalogram", size=(16, 24)))[[5]][0]
    assert np.array_equal(seen[0, 0], np.where(drawn.mask[5], 0, drawn.values[5]))
    assert np.array_equal(seen[0, 1], drawn.mask[5])


def test_raw_samples_are_the_band_at_the_stated_rate():
    "A tone in the band survives with its frequency; one outside is gone."
    times_s = np.arange(600 * 40) / 40
    tones = np.sin(2 * np.pi * 0.5 * times_s) + np.sin(2 * np.pi * 3.0 * times_s)
    data = read_nights([own_case(samples=tones[None])], SignalView("raw", sampling_rate_hz=5, bands_hz=(0.2, 1.0)))
    seen = data[[10]][0][0, 0].numpy()
    assert seen.shape == (100,)
    spectrum = np.abs(np.fft.rfft(np.sinh(seen)))
    assert np.fft.rfftfreq(100, 0.2)[spectrum.argmax()] == pytest.approx(0.5, abs=0.06)
    assert np.sort(spectrum)[-1] > 20 * np.delete(spectrum, range(spectrum.argmax() - 2, spectrum.argmax() + 3)).max()


@pytest.mark.parametrize("view", [RAW, SignalView("raw", 1, 5, ((0.1, 2.0),), normalise="window"), SignalView("features")])
def test_gain_and_offset_of_a_sensor_do_not_count(nights, view):
    night = nights[0]
    louder = type(night.bed)(1000 * night.bed.samples + 50, night.bed.sampling_rate_hz, night.bed.channels, ("V",))
    pair = [read_nights([SignalCase(bed, make_windows(bed, person="a", night="1"), night.labels, CLASSES)], view).tables[0]
            for bed in (night.bed, louder)]
    alike = np.isclose(*pair, atol=0.06, equal_nan=True)  # an interval of the heart may round otherwise
    assert alike.mean() > 0.99


def test_cleaned_recordings_are_taken_as_they_are(nights):
    night = nights[0]
    windows = make_windows(night.bed, person="a", night="1")
    pair = [read_nights([SignalCase(one, windows, night.labels, CLASSES)], RAW).tables[0] for one in (night.bed, clean(night.bed))]
    assert torch.equal(*pair)


def test_context_never_crosses_a_night(features):
    seen, middle = features[[features.cases[1].start]][0][0], features.tables[1][0].nan_to_num()
    assert torch.equal(seen[:, 0], middle) and torch.equal(seen[:, 1], middle)  # repeated, not the end of the night before
    assert torch.equal(seen[:, 2], features.tables[1][1].nan_to_num())


def test_windows_without_samples_get_no_answer_and_are_counted(nights, split, raw, trained):
    person = nights[split.test[0]].person
    samples = nights[split.test[0]].bed.samples.copy()
    samples[:, : samples.shape[1] // 4] = np.nan
    torn = [type(night)(**{**vars(night), "bed": type(night.bed)(samples, 25.0, ("bed force",), ("N",))})
            if night.person == person else night for night in nights]
    dls = signal_loaders(torn, split, RAW)
    coverage = {part.name: part for part in person_scores(trained, dls.test)}["coverage"]
    assert coverage.values[person] == pytest.approx(0.75, abs=0.02)
    assert all(value == 1 for name, value in coverage.values.items() if name != person)
    assert evaluate(trained, dls.test)["coverage"].value == pytest.approx(np.mean(list(coverage.values.values())))


def test_unlabelled_windows_are_context_but_neither_learnt_nor_judged(nights):
    case = own_case(labels=np.where(np.arange(30) < 10, -1, np.arange(30) % 2))
    data = read_nights([case], SignalView("raw", 3, 5, ((0.2, 2.0),)))
    assert len(data) == 20 and (data.labels >= 0).all()
    assert np.array_equal(data.tables[0][9].flatten(), data[0][0][0, :100])
    assert len(read_nights([case], data.view, unlabelled=True)) == 30


def test_the_cache_gives_the_same_and_notices_another_night(nights, cache, features):
    again = read_nights(nights, features.view, cache=cache)
    before = len(list(cache.iterdir()))
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(again.tables, features.tables))
    read_nights(nights[:1], SignalView("features", context=9, normalise="none"), cache=cache)
    assert len(list(cache.iterdir())) == before
    read_nights([simulate_night(1, hours=0.5)], "features", cache=cache)
    assert len(list(cache.iterdir())) == before + 1


# --- splits and leaks -------------------------------------------------------------------------------------------------

def test_one_recording_of_two_persons_is_refused(nights):
    thief = type(nights[0])(**{**vars(nights[0]), "person": "thief"})
    with pytest.raises(ModelError) as caught:
        read_nights([nights[0], thief], RAW)
    assert caught.value.reason == "patient_overlap"


def test_two_nights_of_a_person_stay_together(nights):
    named = [type(night)(**{**vars(night), "person": f"p{number // 2}"}) for number, night in enumerate(nights)]
    split = patient_split([night.person for night in named], valid=0.2, test=0.2, seed=0)
    dls = signal_loaders(named, split, RAW)
    people = [set(loader.dataset.patients) for loader in dls.loaders]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert {case.night for case in dls.train.dataset.cases} == {"1", "2"}
    leaky = Split.__new__(Split)
    for name, value in {**vars(split), "test": split.train[:1]}.items():
        object.__setattr__(leaky, name, value)
    with pytest.raises(ModelError) as caught:
        signal_loaders(named, leaky, RAW)
    assert caught.value.reason == "patient_overlap"


def test_nobody_is_judged_by_what_learnt_from_them(raw, trained, features, split, tmp_path):
    dls = split_nights(features, split)
    for method in (fit_baseline("logistic", dls.train), fit_bed_rule(dls.train)):
        with pytest.raises(ModelError, match="patient_overlap"):
            method_scores(method, dls.train)
        method_scores(method, dls.test)
    save_learner(trained, tmp_path)
    for learn in (trained, load_learner(tmp_path)):
        for call in (evaluate, person_scores):
            with pytest.raises(ModelError, match="patient_overlap"):
                call(learn, raw.train)


# --- training ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model", ["BeatNet", "MultiHeadCNN", "CNNLSTM"])
def test_seeds_reproduce_a_training(nights, split, model):
    said = []
    for seed in (1, 1, 2):
        dls = signal_loaders(nights, split, RAW, seed=seed)
        learn = quiet(signal_learner(dls, model, width=2, seed=seed))
        train(learn, 1, seed=seed)
        said.append(predict(learn, dls.test))
    assert torch.equal(said[0], said[1]) and not torch.equal(said[0], said[2])


def test_a_network_learns_what_a_shuffle_destroys(raw, trained):
    scores = evaluate(trained, raw.test)
    assert scores["auroc"].value > 0.75
    assert scores["balanced accuracy"].naive == 0.5


class Power(Callback):
    "A cut of power after the first epoch."
    order = 70

    def after_epoch(self):
        if self.epoch == 0:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on_to_the_same_weights(raw, tmp_path):
    whole, killed, resumed = (quiet(signal_learner(raw, "CNNLSTM", width=2, hidden=4)) for _ in range(3))
    train(whole, 2, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), killed.added_cbs(Power()):
        train(killed, 2, folder=tmp_path / "killed")
    assert train(resumed, 2, folder=tmp_path / "killed").resumed == 1
    assert torch.equal(predict(whole, raw.test), predict(resumed, raw.test))


@pytest.mark.parametrize("space, model, options", [
    (RAW, "BeatNet", {"width": 2}), (RAW, "MultiHeadCNN", {"width": 2, "kernels": (3, 9)}), (RAW, "CNNLSTM", {"hidden": 4}),
    (SignalView("spectrogram", size=(16, 16)), "SmallClassifier", {"width": 2}),
    (SignalView("features", context=9), "MultiHeadCNN", {"width": 2}),
])
def test_saved_and_loaded_says_the_same(nights, split, cache, tmp_path, space, model, options):
    dls = signal_loaders(nights, split, space, cache=cache)
    learn = signal_learner(dls, model, **options)
    save_learner(learn, tmp_path, notes={"why": "test"})
    again = load_learner(tmp_path)
    assert torch.equal(predict(again, dls.test), predict(learn, dls.test))
    assert again.dls.train.dataset.view == dls.train.dataset.view
    text = (tmp_path / "model.json").read_text()
    assert not any(night.person in text for night in nights)
    assert load_learner(tmp_path, dls=dls).dls is dls


def _changed(folder, **changes):
    card = {**json.loads((folder / "model.json").read_text()), **changes}
    (folder / "model.json").write_text(json.dumps({**card, "seal": seal(card)}))


def test_tampering_is_noticed(raw, trained, tmp_path):
    save_learner(trained, tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    view, settings = card["view"], card["settings"]
    for changes in ({"task": "signal picture"}, {"view": {**view, "space": "spectrogram"}}, {"view": {**view, "bands_hz": [[1, 2]]}},
                    {"view": {**view, "sampling_rate_hz": None}}, {"view": {**view, "window_s": "long"}}, {"view": 3},
                    {"settings": {**settings, "width": 10**9}}, {"settings": {**settings, "kernels": [2]}}, {"classes": ["one"]},
                    {"settings": {**settings, "kernels": "os.system"}}, {"view": {**view, "context": 10**9}}):
        _changed(tmp_path, **{**card, **changes})
        with pytest.raises(ModelError) as caught:
            load_learner(tmp_path)
        assert caught.value.reason == "bad_model_file", changes
    _changed(tmp_path, **card)
    load_learner(tmp_path)
    weights = tmp_path / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match="bad_model_file"):
        load_learner(tmp_path)


# --- rules, baselines, scores -----------------------------------------------------------------------------------------

def test_rules_say_what_signals_says(nights, features):
    for method in ("cole1992", "sadeh1994"):
        chances = wrist_rule(CLASSES, method=method).chances(features)
        said = np.concatenate([np.repeat(sleep_wake(activity_counts(night.wrist, epoch_s=60), method).asleep, 2) for night in nights])
        assert np.array_equal(chances[:, 1], said, equal_nan=True)
    swapped = [SignalCase(night.bed, make_windows(night.bed, person=night.person, night="1"), 1 - night.labels, ("sleep", "wake"),
                          night.wrist) for night in nights[:2]]
    other = wrist_rule(("sleep", "wake")).chances(read_nights(swapped, RAW))
    assert np.array_equal(other[:, 0], wrist_rule(CLASSES).chances(features)[: len(other), 1])


def test_no_watch_no_answer(nights):
    bare = read_nights([type(night)(**{**vars(night), "wrist": None}) for night in nights[:2]], RAW)
    parts = {part.name: part for part in method_scores(wrist_rule(CLASSES), bare)}
    assert set(parts["coverage"].values.values()) == {0.0}
    assert np.isnan(list(parts["balanced accuracy"].values.values())).all()


@pytest.mark.parametrize("name", ["logistic", "boosting", "forest"])  # at 25 Hz some features are withheld throughout
def test_the_metric_is_the_textbook_one(features, split, name):
    from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score
    dls = split_nights(features, split)
    model = fit_baseline(name, dls.train)
    parts, data = {part.name: part.values for part in method_scores(model, dls.test)}, dls.test.dataset
    chances, people = model.chances(data), np.array(data.people)
    for person in set(people.tolist()):
        truth, said = data.truth[people == person], chances[people == person]
        if len(set(truth.tolist())) < 2:
            continue
        assert parts["balanced accuracy"][person] == pytest.approx(balanced_accuracy_score(truth, said.argmax(1)))
        assert parts["kappa"][person] == pytest.approx(cohen_kappa_score(truth, said.argmax(1)))
        assert parts["auroc"][person] == pytest.approx(roc_auc_score(truth, said[:, 1]))


def test_rhythms_of_three_classes(cache):
    kinds = ("sinus", "af", "ectopy") * 4
    nights = [simulate_rhythm(seed, kind, minutes=6) for seed, kind in enumerate(kinds)]
    data = read_nights(nights, "features", cache=cache)
    folds = patient_folds([night.person for night in nights], 2, valid=0.2, seed=0, labels=kinds)
    dls = split_nights(data, folds[0])
    for method in (fit_feature_rule(dls.train, "hrv_cvsd"), fit_baseline("logistic", dls.train)):
        parts = method_scores(method, dls.test)
        assert [part.name for part in parts][:4] == ["balanced accuracy", *(f"sensitivity {name}" for name in ("sinus", "af", "ectopy"))]
    with pytest.raises(ModelError, match="sleep from wake"):
        wrist_rule(data.classes)


def test_a_trainer_answers_for_the_people_of_each_fold(nights, cache):
    folds = patient_folds([night.person for night in nights], 3, valid=0.2, seed=1)
    trainer = SignalTrainer(nights, folds, {"features": SignalView("features", 3)}, cache=cache, rules={"bed": fit_bed_rule})
    for settings in ({"space": "features", "model": "logistic", "seed": 0}, {"heuristic": "bed", "seed": 0}):
        parts = [trainer({**settings, "fold": fold})[0] for fold in range(3)]
        assert [set(part.values) for part in parts] == [set(fold) for fold in trainer.folds]
        assert len(ByPatient.join(parts).values) == len(nights)
    assert not trainer.possible({"space": "features", "model": "SmallClassifier"})


def test_failures_name_the_worst(nights, features, split):
    dls = split_nights(features, split)
    model = fit_baseline("logistic", dls.train)
    table, people = window_failures(model, dls.test), person_failures(model, dls.test)
    assert table["score"].is_monotonic_increasing and people["score"].dropna().is_monotonic_increasing
    parts = method_scores(model, dls.test)[0].values
    assert {row.person: row.score for row in people.itertuples()} == pytest.approx(parts, nan_ok=True)
    row = table.iloc[0]
    found = explain_window(model, dls.test, int(row["position"]))
    assert (found.person, found.start_s, found.truth, found.answer) == tuple(row[["person", "start_s", "truth", "answer"]])
    assert found.probability == pytest.approx(1 - row["score"], abs=1e-6)


# --- wrong input ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, reason", [
    (lambda: read_nights([], RAW), "empty"),
    (lambda: read_nights([3], RAW), "bad_option"),
    (lambda: read_nights([own_case()], "words"), "bad_option"),
    (lambda: read_nights([own_case()], None), "bad_option"),
    (lambda: read_nights([own_case(), own_case("Ben", seed=1, window_s=30.0)], RAW), "bad_shape"),
    (lambda: read_nights([own_case(), own_case()], RAW), "duplicate"),
    (lambda: own_case(labels=np.zeros(3, dtype=int)), "bad_shape"),
    (lambda: own_case(labels=np.zeros(30)), "bad_shape"),
    (lambda: own_case(labels=np.full(30, 2)), "bad_shape"),
    (lambda: own_case(labels=["no"] * 30), "bad_shape"),
    (lambda: own_case(person=None), "patient_missing"),
    (lambda: SignalView("raw", sampling_rate_hz=10), "bad_option"),
    (lambda: SignalView("raw", sampling_rate_hz=float("nan"), bands_hz=((1, 2),)), "bad_option"),
    (lambda: SignalView("raw", sampling_rate_hz=10, bands_hz="1-2"), "bad_option"),
    (lambda: SignalView("raw", sampling_rate_hz=10, bands_hz=((2, 1),)), "bad_option"),
    (lambda: SignalView("spectrogram", size=(7, 7)), "bad_option"),
    (lambda: SignalView("spectrogram", size=32), "bad_option"),
    (lambda: SignalView("features", context=True), "bad_option"),
    (lambda: SignalView("features", context=2), "bad_option"),
])
def test_wrong_input_is_refused_in_words(make, reason):
    with pytest.raises(MedkitError) as caught:
        make()
    assert caught.value.reason == reason and caught.value.hint


def test_uneven_windows_have_no_context():
    case = own_case()
    windows = case.windows[[0, 1, 2, 5, 6, 7]]
    uneven = SignalCase(case.recording, windows, np.array([0, 1, 0, 1, 0, 1]), case.classes)
    read_nights([uneven], SignalView("raw", 1, 5, ((0.2, 2.0),)))
    with pytest.raises(ModelError, match="even distances"):
        read_nights([uneven], SignalView("raw", 3, 5, ((0.2, 2.0),)))


def test_a_band_that_the_recording_does_not_hold(nights):
    slow = SignalView("raw", sampling_rate_hz=50, bands_hz=((1, 20),))
    with pytest.raises(MedkitError) as caught:
        read_nights(nights[:1], slow)  # 25 samples a second
    assert caught.value.reason == "bad_sampling_rate"


def test_one_class_cannot_be_learnt(nights, split):
    asleep = [type(night)(**{**vars(night), "labels": np.ones_like(night.labels)}) for night in nights]
    with pytest.raises(ModelError, match="one_class"):
        signal_loaders(asleep, split, RAW)


def test_features_are_as_many_as_the_network_takes(features, split):
    learn = signal_learner(split_nights(features, split), "MultiHeadCNN", depth=1)
    assert learn.model.settings["in_channels"] == len(FEATURES)
    with pytest.raises(ModelError, match="does not fit"):
        signal_learner(split_nights(features, split), "BeatNet")
