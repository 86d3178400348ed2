"Every odd real file judged against a display pipeline written a second time, and what a stopped job leaves behind."

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import dicom_corpus  # noqa: E402
import dicom_durable  # noqa: E402
import dicom_reference  # noqa: E402


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return dicom_corpus.measure(tmp_path_factory.mktemp("corpus"), peers=False)


def test_the_corpus_is_the_one_that_was_counted(shown):
    with_data = dicom_reference.data_folder() is not None
    assert (shown.files, len(shown.paths)) == ((173, 162) if with_data else (95, 89))


def test_odd_files_look_as_the_standard_says(shown, record_property):
    counted = shown.count("medkit")
    record_property("odd DICOM files shown right", f"{counted['good']} of {len(shown.paths)}")
    assert counted["good"] >= len(shown.paths) - 4, dicom_corpus.not_good(shown)
    assert not [line for line in dicom_corpus.not_good(shown) if ": error" not in line]  # none inverted, blank, wrong
    assert not dicom_corpus.silent(shown)


def test_what_is_not_shown_has_a_reason(shown):
    assert not dicom_corpus.unnamed(shown)
    for _, row in shown.undecodable:
        assert row["status"] in ("failed", "skipped", "ok_warn") or row["outputs"]


@pytest.mark.skipif(not shutil.which("dcmj2pnm"), reason="dcmtk is not installed")
def test_dcmtk_agrees_within_one_grey_level(shown, tmp_path, record_property):
    program = "dcmtk +Wi 1, else +Wm"
    theirs = dicom_corpus.dicom_peers.pictures(program, shown.paths, tmp_path / "dcmtk")
    truths = [dicom_reference.reference(path) for path in shown.paths]
    both = dicom_corpus.CorpusResult(shown.files, shown.paths)
    both.pictures = {"medkit": shown.pictures["medkit"], program: theirs}
    both.verdicts = {program: [dicom_corpus.verdict(*pair) for pair in zip(theirs, truths)]}
    close, samples, files, odd = dicom_corpus.agreement_with_dcmtk(both)
    record_property("pixels within one grey level of dcmtk", f"{close / samples:.3%} in {files} files")
    assert files >= 70 and close >= 0.999 * samples, odd


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda picture: picture, "good"),
        (lambda picture: 255 - picture, "inverted"),
        (lambda picture: picture * 0, "blank"),
        (lambda picture: picture // 2, "tone off"),
        (lambda picture: picture.T, "wrong"),
        (lambda picture: picture[1:], "wrong"),
    ],
    ids=["same", "inverse", "black", "darker", "transposed", "cut"],
)
def test_the_judge_tells_faults_apart(change, verdict):
    rows, columns = np.mgrid[:64, :64]
    truth = (2 * columns + 2 * (rows * 7 % 13)).astype(np.uint8)
    assert dicom_reference.judge(change(truth), truth) == verdict


def test_killed_and_resumed_is_as_if_nothing_happened(tmp_path, record_property):
    kills = dicom_durable.kill_many(tmp_path, files=400, kills=2, workers=2)
    record_property("kill -9 and resume", dicom_durable.summary(kills))
    assert kills.clean, kills


@pytest.mark.slow
def test_killed_many_times(tmp_path):
    kills = dicom_durable.kill_many(tmp_path, files=2000, kills=40)
    assert kills.clean, kills


@pytest.mark.parametrize("disk", ["full_disk", "read_only_target", "read_only_manifest"])
def test_a_disk_that_refuses_stops_the_job_cleanly(tmp_path, disk):
    if refused := dicom_durable.can_mount(tmp_path / "probe"):
        pytest.skip(refused)
    faults = getattr(dicom_durable, disk)(tmp_path)
    assert not faults, faults
