"""Cutting and resampling: a point of the patient keeps its millimetres, whatever grid it lies on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import ImageError
from medkit.imaging import Fault, Mask, Volume, axial_affine, check_same_frame, crop, label_box, place, resample, simulate_abdomen

ANGLES = st.floats(-3.1, 3.1)
STEPS = st.tuples(*[st.floats(0.5, 6.0)] * 3)
SHAPES = st.tuples(*[st.integers(1, 14)] * 3)


def turned_affine(angles, steps, origin=(10.0, -20.0, 30.0)):
    "An affine that is turned about all three axes: an oblique scan."
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        rotation = rotation @ np.roll(np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], axis, axis=0), axis, axis=1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * np.array(steps), origin
    return affine


def at(content, index):
    "Where a voxel lies, in mm."
    return (content.affine @ (*index, 1))[:3]


@st.composite
def scans(draw, shapes=SHAPES):
    "A volume of noise and a mask of blocks on one oblique grid."
    shape, steps = draw(shapes), draw(STEPS)
    affine = turned_affine(draw(st.tuples(ANGLES, ANGLES, ANGLES)), steps)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    volume = Volume(rng.integers(-1000, 1000, shape).astype(np.int16), affine, steps, patient_key="p")
    labels = np.kron(rng.integers(0, 4, [-(-n // 3) for n in shape]), np.ones((3, 3, 3)))[tuple(map(slice, shape))]
    return volume, Mask(labels.astype(np.uint8), {1: "a", 2: "b", 3: "c"}, affine, steps, "p")


@given(scans(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_cut_voxel_keeps_place_and_value(pair, data):
    volume, mask = pair
    center = data.draw(st.tuples(*[st.integers(0, n - 1) for n in volume.shape]))
    shape = data.draw(SHAPES)
    cut, labels = crop(volume, center, shape), crop(mask, center, shape)
    check_same_frame(cut, labels)
    assert cut.shape == shape and cut.voxels.dtype == np.int16 and cut.patient_key == "p" and labels.names == mask.names
    middle = tuple(n // 2 for n in shape)
    np.testing.assert_allclose(at(cut, middle), at(volume, center), atol=1e-9)
    assert cut.voxels[middle] == volume.voxels[center] and labels.labels[middle] == mask.labels[center]
    by_mm = crop(volume, at(volume, center), shape, in_mm=True)
    assert np.array_equal(by_mm.voxels, cut.voxels) and np.allclose(by_mm.affine, cut.affine)
    inside = np.prod([min(c - s // 2 + s, n) - max(c - s // 2, 0) for c, s, n in zip(center, shape, volume.shape)])
    assert bool(cut.notes) == (inside < np.prod(shape))


@given(scans(), st.data())
@settings(max_examples=80, deadline=None)
def test_cut_and_placed_back_is_the_same_inside(pair, data):
    volume, mask = pair
    center = data.draw(st.tuples(*[st.integers(0, n - 1) for n in volume.shape]))
    shape = data.draw(SHAPES)
    inside = tuple(slice(max(0, c - n // 2), c - n // 2 + n) for c, n in zip(center, shape))
    for content, array in ((volume, volume.voxels), (mask, mask.labels)):
        back = place(crop(content, center, shape), volume)
        kept = getattr(back, "voxels", getattr(back, "labels", None))
        expected = np.full_like(array, -1000 if content is volume else 0)
        expected[inside] = array[inside]
        assert np.array_equal(kept, expected) and type(back) is type(content)
        assert np.array_equal(back.affine, volume.affine) and back.spacing_mm == volume.spacing_mm


@given(scans(), STEPS)
@settings(max_examples=60, deadline=None)
def test_resampling_keeps_the_middle_the_spacing_and_what_is_constant(pair, spacing):
    volume, mask = pair
    new, labels = resample(volume, spacing), resample(mask, spacing)
    check_same_frame(new, labels)
    assert new.spacing_mm == pytest.approx(spacing) and new.patient_key == "p" and labels.names == mask.names
    np.testing.assert_allclose(np.linalg.norm(new.affine[:3, :3], axis=0), spacing)
    middle = [(np.array(one.shape) - 1) / 2 for one in (volume, new)]
    np.testing.assert_allclose(at(new, middle[1]), at(volume, middle[0]), atol=1e-6)
    for size, step, length, old in zip(new.shape, spacing, volume.shape, volume.spacing_mm):
        assert size == 1 or abs(size * step - length * old) <= step / 2 + 1e-6
    assert new.voxels.min() >= volume.voxels.min() and new.voxels.max() <= volume.voxels.max()
    assert set(np.unique(labels.labels)) <= set(np.unique(mask.labels))
    flat = resample(replace(volume, voxels=np.full(volume.shape, 42, np.int16)), spacing)
    assert (flat.voxels == 42).all()


@given(st.tuples(ANGLES, ANGLES, ANGLES), STEPS, st.floats(0.4, 2.5))
@settings(max_examples=40, deadline=None)
def test_a_point_keeps_its_value_when_resampled(angles, steps, factor):
    "Values that rise evenly in mm are those of the place, on any grid, away from the rim."
    affine = turned_affine(angles, steps)
    index = np.stack(np.mgrid[:16, :16, :16], axis=-1)
    slope = np.array([0.3, -0.7, 0.5])
    volume = Volume(((index @ affine[:3, :3].T + affine[:3, 3]) @ slope).astype(np.float32), affine, steps)
    new = resample(volume, tuple(factor * step for step in steps))
    there = np.stack(np.meshgrid(*map(np.arange, new.shape), indexing="ij"), axis=-1) @ new.affine[:3, :3].T + new.affine[:3, 3]
    old = (there - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    deep = ((old > 4) & (old < 11)).all(axis=-1)
    assert deep.any()
    np.testing.assert_allclose(new.voxels[deep], (there @ slope)[deep], atol=0.02 * np.abs(volume.voxels).max() / 16 + 1e-3)
    placed = place(volume, new)
    np.testing.assert_allclose(placed.voxels[deep], (there @ slope)[deep], atol=0.02 * np.abs(volume.voxels).max() / 16 + 1e-3)


@given(st.tuples(ANGLES, ANGLES, ANGLES), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_there_and_back_keeps_the_organ(angles, seed):
    rng = np.random.default_rng(seed)
    index = np.stack(np.mgrid[:24, :40, :40], axis=-1)
    mm = (index - (12, 20, 20) - rng.uniform(-2, 2, 3)) * (3, 1, 1)
    labels = ((mm**2).sum(axis=-1) < 14**2).astype(np.uint8)
    labels[((mm - 4)**2).sum(axis=-1) < 6**2] = 2
    mask = Mask(labels, {1: "organ", 2: "tumour"}, turned_affine(angles, (3, 1, 1)), (3, 1, 1))
    there = resample(mask, 2.0)
    back = place(there, mask)
    check_same_frame(Volume(labels.astype(np.int16), mask.affine, mask.spacing_mm), back)
    for label, least in ((1, 0.9), (2, 0.85)):
        one, other = mask.labels == label, back.labels == label
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > least
        assert there.volume_ml(label) == pytest.approx(mask.volume_ml(label), rel=0.06)
        assert back.volume_ml(label) == pytest.approx(mask.volume_ml(label), rel=0.06)


@given(scans(), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=60, deadline=None)
def test_turned_and_flipped_grids_are_exact(pair, order, flips):
    volume, mask = pair
    turn, where = np.zeros((4, 4)), tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turn[3, 3] = 1
    for new, old in enumerate(order):
        turn[old, new], turn[old, 3] = (-1, volume.shape[old] - 1) if flips[new] else (1, 0)
    spacing = tuple(volume.spacing_mm[axis] for axis in order)
    turned = Volume(volume.voxels.transpose(order)[where], volume.affine @ turn, spacing, patient_key="p")
    labels = Mask(mask.labels.transpose(order)[where], mask.names, volume.affine @ turn, spacing, "p")
    assert np.array_equal(place(turned, volume).voxels, volume.voxels)
    assert np.array_equal(place(labels, volume).labels, mask.labels)
    assert np.array_equal(place(mask, turned).labels, labels.labels)


@given(scans(), st.sampled_from([1, 2, 3]), st.floats(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_box_holds_the_label_and_nothing_to_spare(pair, label, margin_mm):
    mask = pair[1]
    if not (mask.labels == label).any():
        with pytest.raises(ImageError, match="empty"):
            label_box(mask, label)
        return
    cut = crop(mask, *label_box(mask, label))
    assert (cut.labels == label).sum() == (mask.labels == label).sum()
    assert all((cut.labels == label).any(axis=tuple({0, 1, 2} - {axis}))[[0, -1]].all() for axis in range(3))
    wide = crop(mask, *label_box(mask, mask.names[label], margin_mm=margin_mm))
    for axis in range(3):
        hit = np.flatnonzero((wide.labels == label).any(axis=tuple({0, 1, 2} - {axis})))
        free = min(hit[0], wide.shape[axis] - 1 - hit[-1]) * mask.spacing_mm[axis]
        assert margin_mm - 1e-6 <= free < margin_mm + mask.spacing_mm[axis]


def test_a_leaning_stack_keeps_its_lean():
    affine = axial_affine((4, 2, 2))
    affine[1, 0] = 1.5  # slices shifted to the back as they rise
    rng = np.random.default_rng(0)
    lean = Volume(rng.integers(0, 100, (10, 20, 20)).astype(np.int16), affine, (4, 2, 2), faults=(Fault("gantry_tilt", "leans"),))
    fine = resample(lean, (2, 2, 2))
    np.testing.assert_allclose(fine.affine[:3, 0], affine[:3, 0] / 2)
    assert [fault.kind for fault in fine.faults] == ["gantry_tilt"]
    np.testing.assert_allclose(at(fine, (9.5, 9.5, 9.5)), at(lean, (4.5, 9.5, 9.5)))


def test_faults_follow_their_slices_and_stop_what_they_would_spoil():
    volume = simulate_abdomen(0, shape=(10, 32, 32))[0]
    gap = Fault("missing_slices", "a gap", (4, 8), 10.0)
    faulty = replace(volume, faults=(gap,), notes=("read with care",))
    cut = crop(faulty, (5, 16, 16), (4, 40, 40))
    assert [fault.slices for fault in cut.faults] == [(1,)] and cut.notes[0] == "read with care" and "filled with -1000" in cut.notes[1]
    for use in (lambda: resample(faulty, 3), lambda: place(faulty, volume), lambda: place(volume, faulty)):
        with pytest.raises(ImageError, match="on_fault") as caught:
            use()
        assert caught.value.reason == "missing_slices"
    mended = resample(replace(volume, faults=(replace(gap, corrected=True),)), 3)
    assert mended.faults[0].slices == () and mended.faults[0].corrected


def test_a_whole_patient_goes_through_voxels_of_two_millimetres():
    volume, mask = simulate_abdomen(3, shape=(24, 128, 128))
    even = resample(mask, 2.0)
    back = place(even, volume)
    for label, name in mask.names.items():
        if label and (mask.labels == label).sum() > 30:
            assert back.volume_ml(label) == pytest.approx(mask.volume_ml(label), rel=0.1), name
    assert (back.labels == mask.labels).mean() > 0.97


def test_small_things_are_not_lost_on_coarse_voxels():
    "A tumour of 6 mm has 0.9 of a voxel of 5 mm: the nearest label loses every fourth."
    rng, found = np.random.default_rng(0), []
    for offset in rng.uniform(-2.5, 2.5, (60, 3)):
        inside = ((np.stack(np.mgrid[:20, :20, :20], axis=-1) - 9.5 - offset) ** 2).sum(axis=-1) < 9
        mask = Mask(inside.astype(np.uint8), {1: "tumour"}, axial_affine((1, 1, 1)), (1, 1, 1))
        found.append(resample(mask, 5).labels.sum())
    assert min(found) >= 1 and max(found) <= 2


def test_three_labels_that_meet_leave_no_hole():
    index = np.stack(np.mgrid[:6, :24, :24], axis=-1) - (0, 11.5, 11.5)
    angle = np.arctan2(index[..., 1], index[..., 2])
    mask = Mask((1 + (angle > -1) + (angle > 1)).astype(np.uint8), {1: "a", 2: "b", 3: "c"}, axial_affine((2, 1, 1)), (2, 1, 1))
    for spacing in (0.7, 1.3, 2.2, (2, 3, 3)):
        assert (resample(mask, spacing).labels > 0).all()


@pytest.mark.parametrize("use", [
    lambda v, m: crop(v, (50, 0, 0), (2, 2, 2)), lambda v, m: crop(v, (0, 0, 0), (0, 2, 2)), lambda v, m: crop(v, 3, (2, 2, 2)),
    lambda v, m: crop(v, (0, 0, 0), (4, 4, 4), fill=1e9), lambda v, m: crop(m, (0, 0, 0), (4, 4, 4), fill=99),
    lambda v, m: crop(None, (0, 0, 0), (1, 1, 1)), lambda v, m: crop(v, (np.inf, 0, 0), (1, 1, 1)),
    lambda v, m: crop(v, (0, 0, 0), (1e9, 1e9, 1e9)), lambda v, m: crop(v, "middle", "all"),
    lambda v, m: resample(v, 0), lambda v, m: resample(v, -1), lambda v, m: resample(v, (1, 1)), lambda v, m: resample(v, "fine"),
    lambda v, m: resample(v, np.nan), lambda v, m: resample(v, 1e-9), lambda v, m: resample(v, None), lambda v, m: resample([v], 1),
    lambda v, m: resample(v, 1e-320), lambda v, m: resample(v, [[1, 1, 1]]),
    lambda v, m: place(m, v.voxels), lambda v, m: place(m.labels, v), lambda v, m: place(m, replace(v, patient_key="other")),
    lambda v, m: label_box(m, "spleeen"), lambda v, m: label_box(m, 77), lambda v, m: label_box(v, 1), lambda v, m: label_box(m, []),
    lambda v, m: label_box(m, "liver", margin_mm="wide"), lambda v, m: label_box(m, "liver", margin_mm=-3),
    lambda v, m: label_box(m, "liver", margin_mm=np.nan), lambda v, m: label_box(m, {}), lambda v, m: label_box(m, 1.5),
])
def test_odd_input_is_refused_in_plain_words(use):
    volume, mask = simulate_abdomen(0, shape=(6, 16, 16))
    with pytest.raises(ImageError) as caught:
        use(volume, mask)
    assert caught.value.hint and len(str(caught.value)) < 600


def test_labels_move_nowhere_when_voxels_are_halved():
    "Every share is a half at the border: ties must not all fall to one side."
    labels = np.zeros((14, 24, 24), np.uint8)
    z, y, x = np.indices(labels.shape) - np.array([6.5, 11.5, 11.5])[:, None, None, None]
    labels[(z / 4.3) ** 2 + (y / 5.2) ** 2 + (x / 7.4) ** 2 < 1] = 1
    coarse = Mask(labels, {0: "background", 1: "organ"}, axial_affine((10.0, 8.0, 8.0), (0.0, 0.0, 0.0)), (10.0, 8.0, 8.0))
    fine = resample(coarse, (10.0, 4.0, 4.0))
    middle = lambda mask: (np.argwhere(mask.labels) @ mask.affine[:3, :3].T + mask.affine[:3, 3]).mean(0)  # noqa: E731
    assert np.abs(middle(fine) - middle(coarse)).max() < 1.0
    assert abs((fine.labels > 0).sum() / (4 * (labels > 0).sum()) - 1) < 0.05
    for axis in range(3):
        turned = replace(coarse, labels=np.ascontiguousarray(np.flip(labels, axis)))
        assert (np.flip(resample(turned, (10.0, 4.0, 4.0)).labels, axis) != fine.labels).mean() < 1e-4
