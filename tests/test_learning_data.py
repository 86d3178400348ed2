"""What reaches the network: splits, views, crops, caches, augmentation, sampling, duplicates, on simulated patients."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, ModelError
from medkit.imaging import Volume, Window, apply_window, read_nifti, read_series, simulate_abdomen, write_series
from medkit.imaging.volume import Mask, axial_affine, voxel_axis
from medkit.learning.augment import Augment
from medkit.learning.cache import cached_arrays, content_key
from medkit.learning.crops import Crop, cut_case
from medkit.learning.duplicates import check_duplicates, find_duplicates
from medkit.learning.loaders import SliceCase, SliceDataset, read_cases, slice_loaders
from medkit.learning.split import Split, check_leakage, patient_folds, patient_split
from medkit.learning.view import View, neighbours

torch.set_num_threads(1)
GLAND = {"pancreas": ["pancreas"], "tumour": ["tumour"]}
QUICK = settings(max_examples=40, deadline=None)
names = st.lists(st.text("abcXYZ019_- é", min_size=1, max_size=6).filter(lambda name: name.strip(" _-")), min_size=6, max_size=40)


@pytest.fixture(scope="module")
def cases():
    return [simulate_abdomen(seed, tumour=seed % 2 == 0, shape=(6, 64, 64), tumour_diameter_mm=50 if seed % 2 == 0 else None)
            for seed in range(6)]


@pytest.fixture(scope="module")
def split(cases):
    return patient_split([volume.patient_key for volume, _ in cases], seed=0)


# splits

@QUICK
@given(names, st.integers(2, 5), st.integers(0, 5), st.data())
def test_no_patient_is_in_two_parts_of_any_fold(patients, k, seed, data):
    labels_of = {name.strip().casefold(): data.draw(st.integers(0, 1)) for name in patients} if data.draw(st.booleans()) else None
    labels = None if labels_of is None else [labels_of[name.strip().casefold()] for name in patients]
    try:
        folds = patient_folds(patients, k, seed=seed, valid=0.1, labels=labels)
    except ModelError as error:
        assert error.reason in ("too_few_patients", "bad_record")
        return
    assert len(folds) == k
    tested = [patient for fold in folds for patient in fold.patients_of("test")]
    assert sorted(tested) == sorted({name.strip() for name in patients})
    for fold in folds:
        parts = [set(fold.patients_of(part)) for part in ("train", "valid", "test")]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert len(fold.train) + len(fold.valid) + len(fold.test) == len(patients)
        check_leakage({part: fold.patients_of(part) for part in ("train", "valid", "test")})


@QUICK
@given(st.sets(st.integers(0, 10_000), min_size=10, max_size=60), st.integers(0, 10_000), st.integers(0, 9))
def test_a_new_patient_moves_hardly_anybody(numbers, newcomer, seed):
    patients = [f"patient-{number}" for number in sorted(numbers)]
    before, after = (patient_split(known, seed=seed) for known in (patients, [*patients, f"patient-{newcomer + 20_000}"]))
    moved = sum(len(set(before.patients_of(part)) - set(after.patients_of(part))) for part in ("train", "valid", "test"))
    assert moved <= 4


def test_groups_and_classes_are_kept_apart_and_together():
    patients = [f"p{number}" for number in range(40)]
    hospitals = [f"hospital {number % 8}" for number in range(40)]
    for split in (patient_split(patients, seed=3, groups=hospitals), *patient_folds(patients, 4, seed=3, groups=hospitals)):
        parts = [{hospitals[case] for case in getattr(split, part)} for part in ("train", "valid", "test")]
        assert sum(map(len, parts)) == 8 == len(set.union(*parts))
    labels = [number < 10 for number in range(40)]
    for fold in patient_folds(patients, 5, seed=3, labels=labels):
        assert sum(labels[case] for case in fold.test) == 2 and sum(labels[case] for case in fold.valid) == 2
    sizes = [len(fold.test) for fold in patient_folds(patients[:22], 4, seed=0, labels=[n % 2 for n in range(22)])]
    assert max(sizes) - min(sizes) <= 2
    with pytest.raises(ModelError, match="two labels"):
        patient_split(patients, seed=3, groups=hospitals, labels=labels)


@pytest.mark.parametrize("first, second", [("Anna", "anna"), ("P_001", "p-1"), ("７", "7"), ("a  b", "a_b"), (" 12", 12), ("x007", "X7")])
def test_one_person_is_known_by_any_spelling(first, second):
    with pytest.raises(ModelError) as caught:
        check_leakage({"train": [first, "q"], "test": [second]})
    assert caught.value.reason == "patient_overlap" and str(first).strip() in str(caught.value) and str(second) in str(caught.value)
    split = patient_split([first, second, *"cdefgh"], seed=0)
    assert any({0, 1} <= set(getattr(split, part)) for part in ("train", "valid", "test"))


@pytest.mark.parametrize("first, second", [("a1", "a10"), ("1-2", "12"), ("anna", "ann"), ("x100", "x1000")])
def test_different_names_are_different_people(first, second):
    check_leakage({"train": [first], "test": [second]})


# duplicates

def copies(voxels: np.ndarray, rng) -> dict[str, np.ndarray]:
    from scipy import ndimage

    def seen(window):  # as saved through a window, with 8 bits, and brought back to HU
        black, white = window.limits
        return np.rint(apply_window(voxels, window) * 255) / 255 * (white - black) + black
    return {
        "re-saved": seen(Window(40, 400)), "other window": seen(Window(50, 350)), "narrow window": seen(Window(60, 200)),
        "noisier": voxels + rng.normal(0, 20, voxels.shape), "shifted by 1": np.roll(voxels, 1, 2),
        "shifted by 2": np.roll(voxels, (2, -2), (1, 2)), "smaller": ndimage.zoom(voxels.astype(float), (1, 0.75, 0.75), order=1),
        "larger": ndimage.zoom(voxels.astype(float), (1, 1.5, 1.5), order=1),
    }


def test_copies_are_found_and_other_patients_are_not():
    "Measured here: 36 x 36 pairs of simulated patients without one false alarm; each kind of copy found in 9 slices of 10."
    volumes = [(f"p{seed}", simulate_abdomen(seed, shape=(6, 128, 128))[0].voxels) for seed in range(72)]
    assert find_duplicates({"train": volumes[:36], "test": volumes[36:]}, window="pancreas") == ()
    rng, found, made = np.random.default_rng(0), {}, 0
    for name, voxels in volumes[:4]:
        made += len(voxels)
        for kind, copy in copies(voxels, rng).items():
            pairs = find_duplicates({"train": volumes[:6], "test": [("copy", copy)]}, window="pancreas")
            assert {pair.patients[0] for pair in pairs} <= {name}, kind
            found[kind] = found.get(kind, 0) + len({pair.slices[1] for pair in pairs})
    assert {kind: round(count / made, 2) for kind, count in found.items() if count < 0.9 * made} == {}


def test_odd_slices_for_duplicates():
    empty = np.full((3, 64, 64), -1000, np.int16)
    assert find_duplicates({"train": [("a", empty)], "test": [("b", empty)]}, window="pancreas") == ()
    tiny = np.random.default_rng(0).normal(40, 100, (2, 9, 7))
    check_duplicates({"train": [("a", tiny)], "test": []}, window="pancreas")
    for odd in (np.zeros((0, 4, 4)), np.zeros((4, 4)), 3):
        with pytest.raises(ModelError, match="bad_shape"):
            find_duplicates({"train": [("a", odd)]}, window="pancreas")


# views

windows = st.builds(Window, st.floats(-1000, 1000), st.floats(1, 4000), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))


@QUICK
@given(st.lists(windows, min_size=1, max_size=3), st.sampled_from([1, 3, 5]), st.integers(1, 9), st.integers(0, 99))
def test_channels_are_the_windows_of_the_neighbours(chosen, stack, slices, seed):
    values = np.random.default_rng(seed).integers(-1200, 3000, (slices, 4, 5)).astype(np.int16)
    view = View(tuple(chosen), stack)
    dataset = SliceDataset(torch.from_numpy(values), torch.zeros(slices, dtype=torch.uint8), [SliceCase("a", 0, slices, (1, 1, 1))], ("n", "y"), view)
    pictures, _ = dataset[list(range(slices))]
    assert pictures.shape == (slices, view.channels, 4, 5) and torch.equal(torch.as_tensor(pictures), dataset.pictures)
    for row in range(slices):
        rows = np.clip(np.arange(row - stack // 2, row + stack // 2 + 1), 0, slices - 1)
        expected = np.stack([apply_window(values[r], window) for r in rows for window in chosen])
        np.testing.assert_allclose(torch.as_tensor(pictures[row]).numpy(), expected, atol=2e-6)
    assert View.from_dict(json.loads(json.dumps(view.as_dict()))) == view


@QUICK
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([1, 3, 5, 7]), st.booleans())
def test_a_stack_never_reaches_into_the_next_patient(lengths, stack, joined):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    found = [SliceCase(f"p{n}", int(a), int(b), (1, 1, 1)) for n, (a, b) in enumerate(zip(starts, starts[1:]))]
    pieces = [torch.full((length, 2, 2), float(n)) + torch.arange(length)[:, None, None] / 10 for n, length in enumerate(lengths)]
    targets = torch.zeros(int(starts[-1]), dtype=torch.uint8)
    dataset = SliceDataset(torch.cat(pieces) if joined else pieces, targets if joined else list(targets.split(lengths)), found, ("n", "y"),
                           View(Window(5, 20, "LINEAR_EXACT"), stack))
    for position, owner in enumerate(dataset.patients):
        seen = torch.as_tensor(dataset[position][0])[:, 0, 0] * 20 - 5
        assert {int(value + 1e-3) for value in seen} == {int(owner[1:])}
        assert torch.all(seen.diff() >= -1e-5)
    assert torch.equal(dataset.values, torch.cat(pieces))
    assert neighbours(lengths[0], stack).shape == (lengths[0], stack)


# cases

def test_all_kinds_of_cases_and_tags(cases):
    volume, mask = cases[0]
    lazy = type("Lazy", (), {"patient_key": "lazy", "load": lambda self: (replace(volume, patient_key=""), replace(mask, patient_key=""), {"hospital": "B"})})()
    dataset = read_cases([(*cases[0], {"hospital": "A"}), lazy, cases[1]], window="pancreas", classes=GLAND)
    assert [case.patient for case in dataset.cases] == [volume.patient_key, "lazy", cases[1][0].patient_key]
    assert [case.tags.get("hospital") for case in dataset.cases] == ["A", "B", None]
    assert dataset.cases[0].spacing_mm == volume.spacing_mm and len(dataset) == 18
    before = volume.voxels[0, 0, 0]
    dataset.volumes[0][0, 0, 0] = 77
    assert volume.voxels[0, 0, 0] == before  # the data set owns its values
    noisy = replace(volume, voxels=volume.voxels + np.float32(0.5))
    denoising = read_cases([(noisy, volume)], window=("pancreas", "liver"), classes=None, stack=3)
    pictures, clean = denoising[[0, 5]]
    assert denoising.task == "denoising" and pictures.shape[1:] == (6, 64, 64) and clean.shape == (2, 2, 64, 64)
    np.testing.assert_allclose(torch.as_tensor(clean[1, 0]).numpy(), apply_window(volume.voxels[5], "pancreas"), atol=1e-6)


@pytest.mark.parametrize("odd", [
    lambda v, m: ((v, v, {}), GLAND), lambda v, m: ((v, m), None), lambda v, m: ((v, m, 3), GLAND), lambda v, m: ((v, -1), ("n", "y")),
    lambda v, m: ((v, replace(v, patient_key="other")), None), lambda v, m: ((v, replace(v, affine=v.affine + np.eye(4)[[0, 1, 2, 0]] * 0 + np.diag([0, 0, 0, 0]) + np.array([[0, 0, 0, 9]] * 3 + [[0] * 4]))), None),
    lambda v, m: ((v, 0.5), ("n", "y")), lambda v, m: ((v, "x"), ("n", "y")), lambda v, m: ((v, None), GLAND), lambda v, m: (("v", m), GLAND),
])
def test_odd_cases_are_refused(cases, odd):
    case, classes = odd(*cases[0])
    with pytest.raises(MedkitError):
        read_cases([case], window="pancreas", classes=classes)


@pytest.mark.parametrize("voxels, kind", [
    (np.full((2, 8, 8), 40000, np.uint16), torch.float32), (np.ones((2, 8, 8), bool), torch.int16), (np.ones((2, 8, 8), ">i2"), torch.int16),
    (np.ones((2, 8, 8), np.float64), torch.float32), (np.ones((2, 8, 16), np.int16)[..., ::2], torch.int16), (np.ones((2, 8, 8), np.int64), torch.int16),
])
def test_voxels_of_any_kind(voxels, kind):
    dataset = read_cases([(Volume(voxels, axial_affine((5, 1, 1)), (5, 1, 1), patient_key="a"), 0)], window="pancreas", classes=("n", "y"))
    assert dataset.values.dtype == kind and dataset.values.shape == (2, 8, 8)
    np.testing.assert_array_equal(dataset.values.numpy(), voxels)


def test_values_that_are_no_numbers_or_too_large_are_refused():
    for value in (np.nan, np.inf, 1e300):
        volume = Volume(np.full((2, 8, 8), value), axial_affine((5, 1, 1)), (5, 1, 1), patient_key="a")
        with pytest.raises(ModelError, match="not_finite"):
            read_cases([(volume, 0)], window="pancreas", classes=("n", "y"))


# crops

def test_a_crop_keeps_the_organ_and_its_place(cases):
    volume, mask = cases[0]
    small, outline = cut_case(Crop(("pancreas", "tumour"), (48, 32), margin_mm=5), volume, mask, "a")
    assert small.shape[1:] == (48, 32) and outline.shape == small.shape
    centre = np.argwhere(np.isin(outline.labels, (9, 10))).mean(0)
    whole = np.argwhere(np.isin(mask.labels, (9, 10))).mean(0)
    if np.isin(outline.labels, (9, 10)).sum() == np.isin(mask.labels, (9, 10)).sum():
        np.testing.assert_allclose(small.affine @ (*centre, 1), volume.affine @ (*whole, 1), atol=1e-6)
    dataset = read_cases(cases, window="pancreas", classes={"pancreas": "pancreas"}, crop=Crop("pancreas", (32, 32), jitter_mm=8))
    assert dataset.values.shape[1:] == (32, 32) and all(case.stop - case.start <= 6 for case in dataset.cases)
    again = read_cases(cases[::-1], window="pancreas", classes={"pancreas": "pancreas"}, crop=Crop("pancreas", (32, 32), jitter_mm=8))
    assert torch.equal(dataset.volumes[0], again.volumes[-1])  # the jitter is the patient's, not the run's


def test_cases_without_the_label_or_a_mask_say_so(cases):
    bare = Mask(np.zeros_like(cases[0][1].labels), cases[0][1].names, cases[0][1].affine, cases[0][1].spacing_mm)
    with pytest.raises(MedkitError) as caught:
        read_cases([(cases[0][0], bare)], window="pancreas", classes=GLAND, crop=Crop("pancreas", (32, 32)))
    assert caught.value.reason == "empty" and cases[0][0].patient_key in str(caught.value)
    with pytest.raises(ModelError, match="needs a mask"):
        read_cases([(cases[0][0], 1)], window="pancreas", classes=("n", "y"), crop=Crop("pancreas", (32, 32)))
    other = simulate_abdomen(9, shape=(6, 40, 48))
    with pytest.raises(ModelError, match="crop=Crop"):
        read_cases([cases[0], other], window="pancreas", classes=GLAND)
    assert read_cases([cases[0], other], window="pancreas", classes=GLAND, crop=Crop(None, (64, 64))).values.shape == (12, 64, 64)


# cache

def test_the_memory_map_equals_memory(cases, split, tmp_path):
    plain, mapped, again = (slice_loaders(cases, split, window="pancreas", classes=GLAND, stack=3, cache=folder)
                            for folder in (None, tmp_path / "deep" / "cache", tmp_path / "deep" / "cache"))
    for one, two, three in zip(plain.loaders, mapped.loaders, again.loaders):
        assert torch.equal(one.dataset.values, two.dataset.values) and torch.equal(one.dataset.pictures, three.dataset.pictures)
        assert torch.equal(one.dataset.targets, three.dataset.targets) and one.dataset.cases == two.dataset.cases == three.dataset.cases
    assert len(list((tmp_path / "deep" / "cache").iterdir())) == len(cases)
    slice_loaders(cases, split, window="bone", classes=GLAND, cache=tmp_path / "deep" / "cache")  # another window is the same entry
    assert len(list((tmp_path / "deep" / "cache").iterdir())) == len(cases)
    reordered = read_cases(cases, window="pancreas", classes=dict(reversed(GLAND.items())), cache=tmp_path / "deep" / "cache")
    assert torch.equal(reordered.targets, read_cases(cases, window="pancreas", classes=dict(reversed(GLAND.items()))).targets)


def _read(folder, unit="HU"):
    _read.calls += 1
    return read_series(folder), None


def test_files_are_not_decoded_again_unless_they_change(tmp_path):
    volume, _ = simulate_abdomen(1, shape=(4, 32, 32))
    write_series(volume, tmp_path / "scan")
    place = tmp_path / "scan"

    class Lazy:
        patient_key, tags = "anna", {"hospital": "A"}

        def __init__(self, unit="HU"):
            self.read = partial(_read, place, unit)

        def load(self):
            return self.read()[0], 1, dict(self.tags)

    _read.calls = 0
    take = lambda unit="HU": read_cases([Lazy(unit)], window="pancreas", classes=("n", "y"), cache=tmp_path / "cache")  # noqa: E731
    first, second = take(), take()
    assert _read.calls == 1 and torch.equal(first.values, second.values) and second.cases[0].tags == {"hospital": "A"}
    take("raw")
    assert _read.calls == 2  # another way of reading is another entry
    brighter = replace(volume, voxels=volume.voxels + np.int16(5))
    for file in place.rglob("*"):
        file.unlink()
    write_series(brighter, place)
    third = take()
    assert _read.calls == 3 and int((third.values - first.values).abs().max()) == 5  # never stale


def test_damage_is_noticed_and_repaired(tmp_path):
    values = np.arange(2000, dtype=np.int16).reshape(5, 20, 20)
    key, make = content_key(values), lambda: {"values": values}
    cached_arrays(tmp_path, key, make)
    file = next(tmp_path.iterdir())
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for turn in range(60):
        changed = bytearray(whole)
        if turn % 3 == 0:
            changed = changed[:rng.integers(0, len(whole))]
        else:
            changed[rng.integers(0, len(whole) if turn % 3 == 1 else 250)] ^= 1 << rng.integers(0, 8)
        file.write_bytes(bytes(changed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(cached_arrays(tmp_path, key, make)["values"], values)
        assert file.read_bytes() == whole


WORKER = """
import sys, time, numpy as np
from medkit.learning.cache import cached_arrays
def make():
    print("making", flush=True)
    time.sleep(float(sys.argv[3]))
    return {"values": np.arange(3_000_000, dtype=np.int16)}
values = cached_arrays(sys.argv[1], sys.argv[2], make)["values"]
assert (values == np.arange(3_000_000, dtype=np.int16)).all()
"""


def test_two_processes_and_a_kill(tmp_path):
    start = lambda pause: subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "key", str(pause)], stdout=subprocess.PIPE)  # noqa: E731
    victim = start(60)
    assert victim.stdout.readline() == b"making\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "key.safetensors").exists()
    both = [start(0.5), start(0.5)]
    assert [worker.wait(120) for worker in both] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["key.safetensors"]
    third = start(0)
    assert third.wait(120) == 0 and third.stdout.read() == b""


def test_a_kill_while_writing_leaves_no_entry(tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "key", "0"], stdout=subprocess.PIPE)
    worker.stdout.readline()
    while worker.poll() is None and not any(file.suffix == ".part" for file in tmp_path.iterdir()):
        time.sleep(0.0005)
    worker.kill()
    worker.wait()
    arrays = cached_arrays(tmp_path, "key", lambda: {"values": np.arange(3_000_000, dtype=np.int16)})
    np.testing.assert_array_equal(arrays["values"], np.arange(3_000_000, dtype=np.int16))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MedkitError, match="not_writable"):
        cached_arrays(tmp_path, "key", lambda: {"values": np.zeros(3)})


def test_no_pickle_in_the_cache(tmp_path):
    with pytest.raises(ModelError):
        cached_arrays(tmp_path, "key", lambda: {"values": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


# augmentation

@QUICK
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.sampled_from([(64, 64), (48, 80)]), st.booleans())
def test_picture_and_outline_stay_registered(seed, stack, shape, flip):
    rows, columns = np.indices(shape)
    disc = ((rows - shape[0] * 0.45) ** 2 + (columns - shape[1] * 0.55) ** 2 < 150).astype(np.uint8)
    values = torch.from_numpy(disc * 400.0 - 160).float().expand(4, stack, *shape)
    settings = Augment(value_chance=0, geometry_chance=1, flip=flip)
    pictures, masks = settings(values, torch.from_numpy(disc).expand(4, *shape), View(Window(40.5, 401), stack), torch.Generator().manual_seed(seed))
    assert torch.equal(pictures[:, 0], pictures[:, -1]) and masks.dtype == torch.uint8 and set(masks.unique().tolist()) <= {0, 1}
    inside = pictures[:, 0] > 0.5
    overlap = 2 * (inside & (masks == 1)).sum() / (inside.sum() + (masks == 1).sum())
    assert overlap > 0.93 and not (inside != (masks == 1))[(pictures[:, 0] < 0.02) | (pictures[:, 0] > 0.98)].any()


def test_augmentation_changes_only_what_it_says(cases):
    values = torch.as_tensor(cases[0][0].voxels[:4, None]).float()
    labels, view, kept = torch.as_tensor(cases[0][1].labels[:4]), View("pancreas"), values.clone()
    draw = lambda augment, targets: augment(values, targets, view, torch.Generator().manual_seed(3))  # noqa: E731
    pictures, same = draw(Augment(geometry_chance=0, value_chance=1), labels)
    assert torch.equal(same, labels) and not torch.equal(pictures, view(values)) and torch.equal(values, kept)
    _, moved = draw(Augment(geometry_chance=1, value_chance=0), labels)
    assert not torch.equal(moved, labels) and set(moved.unique().tolist()) <= set(labels.unique().tolist())
    _, numbers = draw(Augment(), torch.tensor([0, 1, 0, 1], dtype=torch.uint8))
    assert numbers.tolist() == [0, 1, 0, 1]
    off = {name: 0 for name in Augment().as_dict() if name != "flip"}
    assert torch.equal(draw(Augment(**{**off, "geometry_chance": 1, "value_chance": 1}), torch.zeros(4, dtype=torch.uint8))[0], view(values)) or \
        torch.allclose(draw(Augment(**{**off, "geometry_chance": 1, "value_chance": 1}), torch.zeros(4, dtype=torch.uint8))[0], view(values), atol=1e-3)


def test_noise_is_not_smoothed_where_it_is_to_be_learnt():
    clean = torch.full((16, 64, 64), 40.0)
    noisy = clean[:, None] + 25 * torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    view = View(Window(40, 400), 3)
    pictures, answers = Augment(contrast=0, offset_hu=0)(noisy, clean, view, torch.Generator().manual_seed(1))
    deviation = (pictures[:, 1] - view.middle(answers[:, None])[:, 0]).std((1, 2)) * 399
    assert (deviation - 25).abs().max() < 1.5


def test_same_seed_same_batches_and_only_training_is_changed(cases, split):
    def batches(seed, part="train", augment=Augment(), epochs=2):
        dls = slice_loaders(cases, split, window="pancreas", classes=GLAND, batch_size=4, seed=seed, augment=augment, sampling="classes")
        loader = getattr(dls, part)
        return torch.cat([torch.as_tensor(pictures) for _ in range(epochs) for pictures, _ in loader])
    assert torch.equal(batches(1), batches(1)) and not torch.equal(batches(1), batches(2))
    assert not torch.equal(*batches(1).chunk(2))  # another draw in the next epoch
    for part in ("valid", "test"):
        assert torch.equal(batches(1, part), batches(2, part, None))
    torch.manual_seed(0)
    first = batches(1)
    torch.manual_seed(1)
    assert torch.equal(first, batches(1))  # the global generator has no part in it


def test_the_state_of_a_loader_is_its_rng(cases, split):
    dls = slice_loaders(cases, split, window="pancreas", classes=GLAND, batch_size=4, augment=Augment())
    list(dls.train)
    state = dls.train.rng.getstate()
    second = [(pictures, list(dls.train.positions)) for pictures, _ in dls.train]
    dls.train.rng.setstate(state)
    again = [(pictures, list(dls.train.positions)) for pictures, _ in dls.train]
    assert all(torch.equal(one[0], two[0]) and one[1] == two[1] for one, two in zip(second, again))


# sampling

@QUICK
@given(st.lists(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=3), min_size=3, max_size=40), st.integers(0, 99))
def test_classes_are_drawn_as_often_as_stated(held, seed):
    masks = torch.zeros(len(held), 2, 2, dtype=torch.uint8)
    for row, numbers in enumerate(held):
        masks[row].view(-1)[:len(numbers)] = torch.tensor(numbers, dtype=torch.uint8)
    shows = [torch.arange(len(held))[(masks == number).flatten(1).any(1)].tolist() for number in (1, 2)]
    dataset = SliceDataset(torch.zeros(len(held), 2, 2), masks, [SliceCase("a", 0, len(held), (1, 1, 1))], ("b", "x", "y"), View("pancreas"))
    from medkit.learning.loaders import SliceLoader

    if not all(shows):
        with pytest.raises(ModelError, match="one_class"):
            SliceLoader(dataset, bs=2, shuffle=True, sampling="classes", num_workers=0)
        return
    loader = SliceLoader(dataset, bs=2, shuffle=True, sampling="classes", seed=seed, num_workers=0)
    drawn = loader.get_idxs()
    assert len(drawn) == len(held) and set(drawn) <= set(range(len(held)))
    for group in shows:
        assert sum(position in group for position in drawn) >= len(held) // 3 - 2
    assert SliceLoader(dataset, bs=2, shuffle=True, sampling="classes", seed=seed, num_workers=0).get_idxs() == drawn
    assert SliceLoader(dataset, bs=2, sampling="classes", num_workers=0).get_idxs() == list(range(len(held)))  # not shuffled, not sampled


def test_odd_options_of_the_loaders(cases, split):
    for odd in ({"sampling": "patients"}, {"stack": 2}, {"window": ()}, {"crop": Crop("thymus", (32, 32))}, {"batch_size": 1}):
        with pytest.raises(MedkitError):
            slice_loaders(cases, split, **{"window": "pancreas", "classes": GLAND, **odd})
    with pytest.raises(ModelError, match="bad_option"):
        slice_loaders([(v, v) for v, _ in cases], split, window="pancreas", classes=None, sampling="classes")


def test_a_copied_patient_is_found_in_the_loaders(cases):
    volume, mask = cases[0]
    twice = [*cases, (replace(volume, patient_key="anonymous"), replace(mask, patient_key="anonymous"))]
    keys = tuple(one.patient_key for one, _ in twice)
    apart = slice_loaders(twice, Split(keys, np.arange(4), np.array([4, 5]), np.array([6])), window="pancreas", classes=GLAND)
    with pytest.raises(ModelError, match="anonymous slice"):
        apart.check_duplicates()
    slice_loaders(cases, patient_split(keys[:6], seed=0), window="pancreas", classes=GLAND).check_duplicates()


# pictures

def test_pictures_of_batches_and_results(cases, split):
    masks = slice_loaders(cases, split, window=("pancreas", "bone"), classes=GLAND, stack=3, batch_size=4)
    axes = masks.train.show_batch(max_n=2)
    assert [ax.get_title() for ax in axes] == ["target", "target"]
    batch = masks.valid.one_batch()
    assert len(masks.valid.show_results(batch, batch[1], max_n=2)) == 4
    picture = masks.valid.show_batch(batch, max_n=1)[0].images[0].get_array()
    middle = apply_window(masks.valid.dataset.volumes[0][0].numpy(), "pancreas")  # the middle slice, the first window
    free = np.kron((batch[1][0] == 0).numpy(), np.ones((4, 4), bool))
    np.testing.assert_allclose(picture[..., 0][free], np.kron(np.rint(middle * 255), np.ones((4, 4)))[free], atol=1)
    clean = slice_loaders([(v, v) for v, _ in cases], split, window="pancreas", classes=None, stack=3, batch_size=4)
    batch = clean.valid.one_batch()
    assert [ax.get_title() for ax in clean.valid.show_results(batch, (batch[1],), max_n=1)] == ["noisy", "clean", "prediction"]
    plt.close("all")


@pytest.mark.skipif(not os.environ.get("MEDKIT_DATA"), reason="MEDKIT_DATA is not set, so there are no real scans")
def test_real_abdomens_are_told_apart_and_their_copies_found():
    folder = Path(os.environ["MEDKIT_DATA"]) / "imaging" / "totalsegmentator"
    if not folder.is_dir():
        pytest.skip("the scans of TotalSegmentator are not in MEDKIT_DATA")
    first, second = read_nifti(folder / "example_ct.nii.gz", unit="HU"), read_series(folder / "example_ct_dicom")
    parts = {"train": [("first", np.moveaxis(first.voxels, voxel_axis(first.affine, 2), 0))], "test": [("second", second.voxels)]}
    assert find_duplicates(parts, window="pancreas") == ()
    for kind, copy in copies(second.voxels, np.random.default_rng(0)).items():
        pairs = find_duplicates({"train": [("second", second.voxels)], "test": [("copy", copy)]}, window="pancreas")
        assert len({pair.slices[1] for pair in pairs}) >= 0.9 * len(copy), kind


# what a newcomer gives

SLIPS = {
    "a label number": ({"classes": {"liver": 1}}, "by name"), "a class number": ({"classes": {1: "liver"}}, "every class goes by a name"),
    "a list for masks": ({"classes": ["liver"]}, "say classes={'liver': 'liver'}"), "a bare name": ({"classes": "liver"}, "{'liver': 'liver'}"),
    "no class": ({"classes": {}}, "every class goes by a name"), "a crop by name": ({"crop": "liver"}, r"say crop=Crop('liver', (96, 96))"),
    "augment=True": ({"augment": True}, "say augment=Augment()"), "the class Augment": ({"augment": Augment}, "say augment=Augment()"),
    "no such device": ({"device": "cuda:99"}, "or say 'cpu'"), "a pair of numbers": ({"window": (40, 400)}, "did you mean Window(40, 400)?"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_answered_with_what_to_write(cases, split, slip):
    odd, words = SLIPS[slip]
    with pytest.raises(MedkitError) as caught:
        slice_loaders(cases, split, **{"window": "pancreas", "classes": GLAND, **odd})
    assert words in str(caught.value) and "none" not in caught.value.hint


def test_a_class_that_no_training_patient_has_is_refused(cases, split):
    classes = {"liver": "liver", "tumour": "tumour"}
    healthy = [(volume, replace(mask, labels=np.where(mask.labels == 10, 0, mask.labels).astype(np.uint8))) for volume, mask in cases]
    with pytest.raises(ModelError, match="one_class") as caught:
        slice_loaders(healthy, split, window="pancreas", classes=classes)
    assert "'tumour'" in str(caught.value) and "'liver'" not in str(caught.value)
    sick = next(number for number in split.train if (cases[number][1].labels == 10).any())
    slice_loaders([cases[number] if number == sick else case for number, case in enumerate(healthy)], split, window="pancreas", classes=classes)
