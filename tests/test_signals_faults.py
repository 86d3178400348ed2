"""What is wrong with a recording is named: by a reason, a note or a missing span. Nothing is silently resampled, nothing else escapes.

Faults of paths, rates, encodings and very wide tables are in test_signals_recording.py.
"""

import io
import re
import struct
import sys
import tempfile
import warnings
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import Recording, clean, read_recording

edfio, h5py, wfdb = (pytest.importorskip(name, reason="the extra `formats`") for name in ("edfio", "h5py", "wfdb"))
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WAVE = np.round(np.sin(np.arange(1000) / 7), 4)
NIGHT = datetime(2024, 3, 1, 22, 30)


def table(stamps=None, values=WAVE, header="time,bed", mark=","):
    "A text table, with stamps if given."
    rows = [f"{v}" for v in values] if stamps is None else [f"{t}{mark}{v}" for t, v in zip(stamps, values)]
    return "\n".join([header, *rows]) + "\n"


def even(count=1000, rate=100.0): return np.round(np.arange(count) / rate, 6)


def clocks(start, count=1000, jump_s=0.0, zone="", step_s=0.01):
    "Clock times with a jump in the middle."
    return [(start + timedelta(seconds=n * step_s + jump_s * (n >= count // 2))).isoformat(timespec="milliseconds") + zone for n in range(count)]


def stamped(change, at=500, rate=100.0):
    "Even stamps after `change(stamps)` edited them from `at` on."
    stamps = even(rate=rate)
    stamps[at:] = change(stamps[at:])
    return table(stamps)


def npz(pack=np.savez, **arrays):
    buffer = io.BytesIO()
    pack(buffer, **arrays)
    return buffer.getvalue()


def mat(**arrays):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays)
    return buffer.getvalue()


class Pickled:
    def __reduce__(self): return print, ("this code ran",)


def stated_bomb():
    "An archive whose list of members says that one unpacks to 2 GB."
    data = bytearray(npz(np.savez_compressed, bcg=WAVE))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24: entry + 28] = struct.pack("<I", 2_000_000_000)
    return bytes(data)


def real_bomb():
    "1.2 GB of zeros, packed."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("bcg.npy", "w") as member:
        for _ in range(1200):
            member.write(bytes(10**6))
    return buffer.getvalue()


def lying_array():
    "An array in an archive whose own header states 8 TB."
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bcg.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64))
    return buffer.getvalue()


def hdf5(fill):
    "A MATLAB v7.3 file."
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        fill(file)
    data = bytearray(buffer.getvalue())
    data[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM"
    return bytes(data)


def hdf5_night(file): file["Fs"], file["bed"] = [[100.0]], WAVE[None]


def hdf5_circle(file):
    cell = file.create_dataset("a", (1, 1), h5py.ref_dtype)
    cell[0, 0], file["back"] = cell.ref, file["/"]


def hdf5_mosaic(file):
    layout = h5py.VirtualLayout((100,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "bed", (100,))
    file.create_virtual_dataset("bed", layout)


def hdf5_crowd(file):
    for number in range(20_001):
        file.create_group(str(number))


def hdf5_deep(file):
    group = file
    for _ in range(50):
        group = group.create_group("g")
    group["bed"] = WAVE


def edf(signals=None, **options):
    "An EDF file of 10 s in records of 1 s."
    signals = signals or [edfio.EdfSignal(WAVE, 100, label="bed", physical_dimension="N", physical_range=(-2, 2))]
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        edfio.Edf(signals, **options).write(buffer)
    return buffer.getvalue()


def edf_plus(*changes):
    "An EDF+D file in which the begins of records are changed: (second, text of the same length)."
    data = edf(annotations=[], starttime=time(22, 30), recording=edfio.Recording(startdate=date(2024, 3, 1)), data_record_duration=1)
    data = data.replace(b"EDF+C", b"EDF+D")
    for second, text in changes:
        data = data.replace(b"+%d\x14\x14" % second, text + b"\x14\x14")
    return data


def late_edf(begins):
    "An EDF+D file whose last record begins at another time than after 9 s."
    marks = [edfio.EdfAnnotation(0.5, 0, "words that leave room for a long time")]
    data = edf(annotations=marks, data_record_duration=1).replace(b"EDF+C", b"EDF+D")
    return data.replace(b"+9\x14\x14".ljust(len(begins), b"\0"), begins)


def two_rates():
    slow = edfio.EdfSignal(WAVE[::10], 10, label="chest", physical_range=(-2, 2))
    return edf([edfio.EdfSignal(WAVE, 100, label="bed", physical_range=(-2, 2)), slow])


def at(data, offset, text):
    "`data` with `text` written over it."
    return data[:offset] + text + data[offset + len(text):]


def record(header=lambda text: text, signal=lambda data: data, **options):
    "The two files of a WFDB record."
    options = {"fs": 100, "units": ["N"], "sig_name": ["bed"], "fmt": ["16"], "p_signal": WAVE[:, None]} | options
    with tempfile.TemporaryDirectory() as folder:
        wfdb.wrsamp("night", write_dir=folder, **options)
        texts = {name: Path(folder, name).read_bytes() for name in ("night.hea", "night.dat")}
    return {"night.hea": header(texts["night.hea"].decode()).encode(), "night.dat": signal(texts["night.dat"])}


def without(files, name): return {key: value for key, value in files.items() if key != name}


EDF_10 = {"data_record_duration": 1}
REFUSED = {  # name -> (reason, file name, content or files by name, options)
    "nothing": ("empty", "a.csv", "", {}),
    "blank lines": ("empty", "a.csv", "\n \n\t\n", {}),
    "names alone": ("empty", "a.csv", "time,bed\n", {}),
    "a comment alone": ("empty", "a.csv", "# fs = 100\n", {}),
    "one sample": ("too_short", "a.csv", "bed\n5\n", {"sampling_rate_hz": 100}),
    "time without samples": ("empty", "a.csv", "time\n0\n1\n2\n", {}),
    "all missing": ("all_missing", "a.csv", "bed\nnan\n-\nn/a\n", {"sampling_rate_hz": 100}),
    "a word among numbers": ("not_numeric", "a.csv", table(values=[1, 2, "off", 4]), {"sampling_rate_hz": 100}),
    "a column of words": ("not_numeric", "a.csv", table("abcd", [1, 2, 3, 4], "state,bed"), {"sampling_rate_hz": 100}),
    "an infinity": ("not_numeric", "a.csv", table(values=[1, 2, "inf", 4]), {"sampling_rate_hz": 100}),
    "a number too large": ("not_numeric", "a.csv", table(values=[1, 2, "1e999", 4]), {"sampling_rate_hz": 100}),
    "a hexadecimal": ("not_numeric", "a.csv", table(values=[1, 2, "0x1F", 4]), {"sampling_rate_hz": 100}),
    "no such column": ("bad_column", "a.csv", table(even()), {"column": "ecg"}),
    "two columns of one name": ("bad_column", "a.csv", "bed,bed\n1,2\n3,4\n", {"sampling_rate_hz": 100}),
    "more names than columns": ("bad_column", "a.csv", "time,bed,ecg\n0,1\n0.01,2\n", {}),
    "a row too short": ("bad_column", "a.csv", "1,2\n" * 30 + "3\n5,6\n", {"sampling_rate_hz": 100}),
    "a torn last row": ("truncated", "a.csv", "1,2\n" * 30 + "5", {"sampling_rate_hz": 100}),
    "no rate": ("sampling_rate_missing", "a.csv", table(), {}),
    "a counter for a clock": ("sampling_rate_missing", "a.csv", table(range(1000), header="n,bed"), {}),
    "whole seconds without a rate": ("sampling_rate_missing", "a.csv", table(np.arange(1000) // 100), {}),
    "a rate of zero": ("bad_sampling_rate", "a.csv", "# fs = 0\n" + table(), {}),
    "two rates in the comments": ("bad_sampling_rate", "a.csv", "# fs = 100\n# sampling rate: 200\n" + table(), {}),
    "another rate than the comment": ("bad_sampling_rate", "a.csv", "# fs = 100\n" + table(), {"sampling_rate_hz": 125}),
    "another rate than the stamps": ("bad_sampling_rate", "a.csv", table(even()), {"sampling_rate_hz": 50}),
    "another rate than whole seconds allow": ("bad_sampling_rate", "a.csv", table(np.arange(5000) // 100, np.tile(WAVE, 5)),
                                              {"sampling_rate_hz": 200}),
    "a clock 3 % fast": ("bad_sampling_rate", "a.csv", table(even(rate=103)), {"sampling_rate_hz": 100}),
    "a comment at odds with the stamps": ("bad_sampling_rate", "a.csv", "# fs = 226\n" + table(even()), {}),
    "stamps that step back": ("bad_sampling_rate", "a.csv", stamped(lambda s: s - 1), {}),
    "stamps in reverse": ("bad_sampling_rate", "a.csv", table(even()[::-1]), {}),
    "stamps that stand still": ("bad_sampling_rate", "a.csv", table(np.ones(1000)), {}),
    "a stamp missing": ("bad_sampling_rate", "a.csv", table([0, 0.01, "", 0.03, 0.04], WAVE[:5]), {}),
    "a gap of years": ("bad_sampling_rate", "a.csv", stamped(lambda s: s + 1e8), {}),
    "the end of summer time": ("bad_sampling_rate", "a.csv", table(clocks(datetime(2024, 10, 27, 2, 59, 55), jump_s=-3600)), {}),
    "zones in half of the stamps": ("not_numeric", "a.csv", table([*clocks(NIGHT, 500), *clocks(NIGHT, 500, zone="Z")]), {}),
    "a word among clock times": ("not_numeric", "a.csv", table(["22:30:00.0", "22:30:00.1", "later"], [1, 2, 3]), {}),
    "a thirteenth month": ("not_numeric", "a.csv", table(["2024-12-31T00:00:00", "2024-13-01T00:00:00"], [1, 2]), {}),
    "a column of decimal commas": ("not_numeric", "a.csv", "0,5\n0,05\n0,25\n", {"sampling_rate_hz": 100}),
    "commas that may group thousands": ("not_numeric", "a.csv", "a\tb\n1,500\t2\n2,250\t3\n", {"sampling_rate_hz": 100}),
    "an endless quotation": ("not_numeric", "a.csv", '"' + "1" * 200_000, {"sampling_rate_hz": 100}),
    "a torn UTF-16 text": ("truncated", "a.csv", table(even()).encode("utf-16")[:-1], {}),
    "UTF-16 without its mark": ("unsupported_format", "a.csv", table(even()).encode("utf-16-le"), {}),
    "a picture": ("unsupported_format", "a.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", {}),
    "a program": ("unsupported_format", "a.csv", b"\x7fELF\x02\x01\x01" + bytes(100), {}),
    "a web page": ("bad_column", "a.csv", "<!DOCTYPE html>\n<html><body>Please log in</body></html>\n", {"sampling_rate_hz": 100}),
    "a torn NPZ": ("truncated", "a.npz", npz(bcg=WAVE, fs=100)[:300], {}),
    "a pickle in an NPZ": ("unsupported_format", "a.npz", npz(bcg=np.array([Pickled()], dtype=object)), {}),
    "a bomb that says so": ("too_large", "a.npz", stated_bomb, {"sampling_rate_hz": 100}),
    "a bomb of zeros": ("too_large", "a.npz", real_bomb, {"sampling_rate_hz": 100}),
    "an array that lies about its size": ("truncated", "a.npz", lying_array, {"sampling_rate_hz": 100}),
    "words in an NPZ": ("empty", "a.npz", npz(bcg=np.array(["a", "b"])), {"sampling_rate_hz": 100}),
    "complex numbers": ("not_numeric", "a.npz", npz(bcg=WAVE * 1j), {"sampling_rate_hz": 100}),
    "a cube of numbers": ("empty", "a.npz", npz(bcg=np.ones((9, 9, 9))), {"sampling_rate_hz": 100}),
    "a clock alone in an NPZ": ("empty", "a.npz", npz(time=even(), fs=100), {}),
    "an infinity in an NPZ": ("not_finite", "a.npz", npz(bcg=np.array([1, np.inf, 2]), fs=100), {}),
    "two rates in an NPZ": ("bad_sampling_rate", "a.npz", npz(bcg=WAVE, fs=100, sfreq=200), {}),
    "another rate than the NPZ": ("bad_sampling_rate", "a.npz", npz(bcg=WAVE, fs=100), {"sampling_rate_hz": 200}),
    "a web page for an NPZ": ("truncated", "a.npz", b"PK<html>Please log in</html>", {}),
    "a torn MATLAB file": ("truncated", "a.mat", mat(bcg=WAVE, Fs=100)[:300], {}),
    "a MATLAB file of structs": ("empty", "a.mat", mat(bcg={"a": 1.0}), {"sampling_rate_hz": 100}),
    "a MATLAB file without a rate": ("sampling_rate_missing", "a.mat", mat(bcg=WAVE), {}),
    "a MATLAB array of 8 TB": ("too_large", "a.mat", lambda: mat(bcg=WAVE[None]).replace(struct.pack("<ii", 1, 1000), struct.pack("<ii", 10**6, 10**6)),
                               {"sampling_rate_hz": 100}),
    "a torn MATLAB v7.3 file": ("truncated", "a.mat", lambda: hdf5(hdf5_night)[:900], {}),
    "a MATLAB v7.3 head alone": ("truncated", "a.mat", b"MATLAB 7.3 MAT-file".ljust(600), {}),
    "an HDF5 array of 8 TB": ("too_large", "a.mat", lambda: hdf5(lambda f: f.create_dataset("bed", (10**6, 10**6), "f8", chunks=(10, 10))), {}),
    "an HDF5 array in another file": ("unsupported_format", "a.mat",
                                      lambda: hdf5(lambda f: f.create_dataset("bed", (9,), "u1", external=[("/etc/hostname", 0, 9)])), {}),
    "an HDF5 mosaic of other files": ("unsupported_format", "a.mat", lambda: hdf5(hdf5_mosaic), {}),
    "an HDF5 file of links": ("empty", "a.mat", lambda: hdf5(lambda f: f.update({"bed": h5py.ExternalLink("other.mat", "/bed")})), {}),
    "an HDF5 file in a circle": ("empty", "a.mat", lambda: hdf5(hdf5_circle), {}),
    "an HDF5 file too deep": ("empty", "a.mat", lambda: hdf5(hdf5_deep), {}),
    "an HDF5 file of too many parts": ("too_large", "a.mat", lambda: hdf5(hdf5_crowd), {}),
    "an HDF5 file without a rate": ("sampling_rate_missing", "a.mat", lambda: hdf5(lambda f: f.update({"bed": WAVE})), {}),
    "a torn EDF head": ("truncated", "a.edf", lambda: edf()[:300], {}),
    "a torn EDF record": ("truncated", "a.edf", lambda: edf()[:-7], {}),
    "an EDF file longer than it says": ("bad_header", "a.edf", lambda: edf() + bytes(5000), {}),
    "an EDF head that counts too many signals": ("truncated", "a.edf", lambda: at(edf(), 252, b"4000"), {}),
    "an EDF head of no signals": ("bad_header", "a.edf", lambda: at(edf(), 252, b"0   "), {}),
    "an EDF head that counts too many records": ("truncated", "a.edf", lambda: at(edf(**EDF_10), 236, b"99999   "), {}),
    "an EDF head with words for numbers": ("bad_header", "a.edf", lambda: at(edf(), 236, b"many    "), {}),
    "EDF records without a length": ("bad_header", "a.edf", lambda: at(edf(), 244, b"NaN     "), {}),
    "EDF records of no time": ("empty", "a.edf", lambda: at(edf(), 244, b"0       "), {}),
    "EDF records of 200 MB": ("truncated", "a.edf", lambda: at(edf(), 256 + 216, b"99999999"), {}),
    "an EDF channel without a scale": ("bad_header", "a.edf", lambda: edf().replace(b"-2      ", b"2       "), {}),
    "EDF channels of two rates": ("mixed_rates", "a.edf", two_rates, {}),
    "no such EDF channel": ("bad_column", "a.edf", two_rates, {"column": "ecg"}),
    "another rate than the EDF file": ("bad_sampling_rate", "a.edf", edf, {"sampling_rate_hz": 50}),
    "an EDF file of events alone": ("empty", "a.edf", lambda: edfio.Edf([], annotations=[edfio.EdfAnnotation(0, None, "x")]).to_bytes(), {}),
    "EDF+D records that overlap": ("bad_header", "a.edf", lambda: edf_plus((5, b"+3")), {}),
    "EDF+D records years apart": ("too_large", "a.edf", lambda: late_edf(b"+999999999\x14\x14\0"), {}),
    "an EDF+D record without its time": ("bad_header", "a.edf", lambda: edf_plus((5, b"\0\0")).replace(b"\0\0\x14\x14", bytes(4)), {}),
    "EDF+D events in disorder": ("bad_header", "a.edf", lambda: edf_plus((5, b"x5")), {}),
    "a BDF file": ("unsupported_format", "a.bdf", lambda: b"\xffBIOSEMI" + b" " * 600, {}),
    "a WFDB header without its samples": ("not_found", "night.hea", lambda: without(record(), "night.dat"), {}),
    "WFDB samples without their header": ("unsupported_format", "night.dat", lambda: without(record(), "night.hea"), {}),
    "torn WFDB samples": ("truncated", "night.hea", lambda: record(signal=lambda data: data[:-10]), {}),
    "a WFDB header without a rate": ("sampling_rate_missing", "night.hea", lambda: record(lambda text: text.replace(" 100 1000", "")), {}),
    "a WFDB header without its signal lines": ("bad_header", "night.hea", lambda: record(lambda text: text.splitlines()[0]), {}),
    "a WFDB record of no signals": ("empty", "night.hea", {"night.hea": "night 0 100\n"}, {}),
    "a WFDB header that leads elsewhere": ("unsafe_path", "night.hea", lambda: record(lambda text: text.replace("night.dat", "../night.dat")), {}),
    "a WFDB header that leads to the net": ("unsafe_path", "night.hea", lambda: record(lambda text: text.replace("night.dat", "s3://a/b.dat")), {}),
    "a WFDB header that says 10 TB": ("too_large", "night.hea", lambda: record(lambda text: text.replace(" 1000", " 1000000000000", 1)), {}),
    "a WFDB rate below zero": ("bad_sampling_rate", "night.hea", lambda: record(lambda text: text.replace("1 100 ", "1 -100 ")), {}),
    "a WFDB record of segments": ("unsupported_format", "night.hea", lambda: record(lambda text: text.replace("night 1", "night/2 1", 1)), {}),
    "WFDB samples in an unknown form": ("unsupported_format", "night.hea", lambda: record(lambda text: text.replace("dat 16", "dat 999")), {}),
    "WFDB channels of two rates": ("mixed_rates", "night.hea", lambda: record(
        p_signal=None, e_p_signal=[WAVE[:250], WAVE], samps_per_frame=[1, 4], units=["N", "N"], sig_name=["a", "b"], fmt=["16", "16"]), {}),
    "another rate than the WFDB header": ("bad_sampling_rate", "night.hea", record, {"sampling_rate_hz": 50}),
    "a binary WFDB header": ("bad_header", "night.hea", {"night.hea": bytes(range(256))}, {}),
}


def put(folder, name, content):
    "The files of a fault, and the path to read."
    content = content() if callable(content) else content
    for file, data in (content if isinstance(content, dict) else {name: content}).items():
        (folder / file).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder / name


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_refused_by_name(tmp_path, fault):
    reason, name, content, options = REFUSED[fault]
    path = put(tmp_path, name, content)
    with pytest.raises(MedkitError) as caught:
        read_recording(path, **options)
    assert caught.value.reason == reason, caught.value
    assert caught.value.found and caught.value.expected and caught.value.hint
    assert str(tmp_path) not in str(caught.value)


def missing(recording): return int(np.isnan(recording.samples).sum())


GAP = np.r_[WAVE[:400], np.full(100, np.nan), WAVE[500:]]
FLAGGED = {  # name -> (words of a note, missing samples, rate or None, file name, content or files, options)
    "a clock 1 % fast": ("1 % off the stated 100 Hz", 0, 100, "a.csv", table(even(rate=101)), {"sampling_rate_hz": 100}),
    "a clock 1 % slow": ("-1 % off the stated 100 Hz", 0, 100, "a.csv", table(even(rate=99)), {"sampling_rate_hz": 100}),
    "a clock that speeds up": ("uneven time stamps", 0, None, "a.csv", table(np.round(np.arange(1000) / 100 + (np.arange(1000) / 3000) ** 2, 5)), {}),
    "repeated stamps": ("3 time stamps repeat", 0, None, "a.csv", table(np.r_[even()[:3], [0.02] * 3, even()[6:]]), {}),
    "jittering stamps": ("uneven time stamps: resampled", 0, None, "a.csv", table(even() + 0.004 * (np.arange(1000) % 3)), {}),
    "5 s without stamps": ("uneven time stamps", 500, None, "a.csv", stamped(lambda s: s + 5), {}),
    "whole seconds beside a rate": ("too coarse", 0, 100, "a.csv", table(np.arange(1000) // 100), {"sampling_rate_hz": 100}),
    "a gap of whole seconds": ("1 gaps between the coarse", 0, 100, "a.csv", table(
        np.arange(1000) // 100 + 60 * (np.arange(1000) > 499)), {"sampling_rate_hz": 100}),
    "the start of summer time": ("skips an hour", 360_000, None, "a.csv",
                                 table(clocks(datetime(2024, 3, 31, 1, 58), 24_000, jump_s=3600), np.tile(WAVE, 24)), {}),
    "midnight without a date": ("pass midnight", 0, 100, "a.csv", table([t[11:] for t in clocks(datetime(2024, 3, 1, 23, 59, 55))]), {}),
    "milliseconds since 1970": ("milliseconds since 1970", 0, 100, "a.csv", table([1709332200000 + 10 * n for n in range(1000)]), {}),
    "nanoseconds since 1970": ("nanoseconds since 1970", 0, 100, "a.csv", table([1709332200000000000 + 10**7 * n for n in range(1000)]), {}),
    "blank lines among samples": ("3 blank lines", 3, 100, "a.csv", "bed\n1\n\n\n\n2\n3\n", {"sampling_rate_hz": 100}),
    "empty cells": ("", 100, 100, "a.csv", table(even(), ["" if np.isnan(v) else v for v in GAP]), {}),
    "a flat line": ("bed holds one value only: 512", 0, 100, "a.csv", table(values=[512] * 1000), {"sampling_rate_hz": 100}),
    "a flat channel in an NPZ": ("ecg holds one value only", 0, 100, "a.npz", npz(bed=WAVE, ecg=np.zeros(1000), fs=100), {}),
    "an EDF+D gap": ("1 gaps between records, 6 s missing", 600, 100, "a.edf", lambda: late_edf(b"+15\x14\x14\0"), {}),
    "an EDF file that was not closed": ("does not state the number of records", 0, 100, "a.edf", lambda: at(edf(**EDF_10), 236, b"-1      "), {}),
    "a torn EDF file that was not closed": ("last record is incomplete", 0, 100, "a.edf", lambda: at(edf(**EDF_10), 236, b"-1      ")[:-7], {}),
    "an EDF file without a date": ("no date", 0, 100, "a.edf", edf, {}),
    "EDF samples beyond their range": ("lie outside the range", 0, 100, "a.edf", lambda: edf().replace(b"-32768  ", b"-1      "), {}),
    "a WFDB header without a gain": ("raw counts", 0, 100, "night.hea", lambda: record(lambda text: re.sub("dat 16 .*", "dat 16", text)), {}),
    "WFDB samples that were changed": ("checksum", 0, 100, "night.hea", lambda: record(signal=lambda data: at(data, 100, b"\x11\x22")), {}),
    "more WFDB samples than stated": ("the rest was left out", 0, 100, "night.hea", lambda: record(signal=lambda data: data + bytes(100)), {}),
    "a WFDB time without a date": ("without a date", 0, 100, "night.hea", lambda: record(base_time=time(22, 30)), {}),
    "a missing WFDB sample": ("", 1, 100, "night.hea", lambda: record(p_signal=np.r_[WAVE[:-1], np.nan][:, None]), {}),
}


@pytest.mark.parametrize("fault", FLAGGED)
def test_a_fault_is_flagged(tmp_path, fault):
    words, gaps, rate, name, content, options = FLAGGED[fault]
    recording = read_recording(put(tmp_path, name, content), **options)
    assert words in "; ".join(recording.notes), recording.notes
    assert abs(missing(recording) - gaps) <= (2 if gaps >= 500 else 0) and (rate is None or abs(recording.sampling_rate_hz / rate - 1) < 1e-6)


def test_the_end_of_summer_time_is_called_by_its_name(tmp_path):
    with pytest.raises(SignalError, match="end of summer time"):
        read_recording(put(tmp_path, *REFUSED["the end of summer time"][1:3]))


def test_faults_are_many():
    assert len(REFUSED) + len(FLAGGED) >= 40


@pytest.mark.parametrize("kind, spoil", [("missing", np.nan), ("saturated", 3.0), ("low", 0.0)])
def test_trouble_inside_the_signal_becomes_a_span(kind, spoil):
    t = np.arange(0, 120, 0.01)
    values = np.sin(2 * np.pi * t / 4) + 0.3 * np.sin(2 * np.pi * 6 * t)
    values[4000:8000] = values[4000:8000] * 0.01 if kind == "low" else spoil
    spans = clean(Recording(values, 100)).spans()[kind]
    assert len(spans) and abs(spans[0][0] - 40) < 3 and abs(spans[-1][1] - 80) < 3


def test_unit_rate_start_and_events_travel(tmp_path):
    marks = [edfio.EdfAnnotation(3, 2, "turned over")]
    path = put(tmp_path, "a.edf", edf(annotations=marks, starttime=time(22, 30), recording=edfio.Recording(startdate=date(2024, 3, 1))))
    night = read_recording(path)
    part = night.select("bed").part(4, 8)
    assert (part.units, part.sampling_rate_hz, part.start) == (("N",), 100, NIGHT + timedelta(seconds=4))
    assert part.events == ((0.0, 1.0, "turned over"),)
    stored = {"bed": WAVE, "fs": 100, "units": np.array(["N"]), "start": np.array(NIGHT.isoformat())}
    saved = read_recording(put(tmp_path, "a.npz", npz(**stored)))
    assert (saved.units, saved.start) == (("N",), NIGHT)
    named = read_recording(put(tmp_path, "a.csv", "# start: 2024-03-01 22:30\n" + table(even(), header="time (s),bed (mV)")))
    assert (named.units, named.start, named.channels) == (("mV",), NIGHT, ("bed (mV)",))


FORMATS = {"edf": edf, "hea": record, "mat": lambda: hdf5(hdf5_night), "npz": lambda: npz(bcg=WAVE, fs=100)}


@pytest.mark.parametrize("kind", FORMATS)
@QUICK
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_words(tmp_path, kind, data):
    whole = FORMATS[kind]()
    files = whole if isinstance(whole, dict) else {f"night.{kind}": whole}
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 1200) - 1))] = data.draw(st.integers(0, 255))
    files = files | {name: bytes(content[: data.draw(st.integers(1, len(content)) | st.just(len(content)))])}
    try:
        read_recording(put(tmp_path, f"night.{kind}", files))
    except SignalError as error:
        assert error.found and error.expected


@QUICK
@given(values=st.lists(st.integers(-999_999, 999_999), min_size=12, max_size=40, unique=True), mark=st.sampled_from([";", "\t"]),
       comma=st.booleans(), quoted=st.booleans(), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
       clock=st.sampled_from(["seconds", "iso", "iso zone", "epoch ms"]))
def test_a_table_reads_back_however_it_was_saved(tmp_path, values, mark, comma, quoted, encoding, clock):
    stamps = {"seconds": [f"{n / 50:.2f}" for n in range(len(values))], "iso": clocks(NIGHT, len(values), step_s=0.02),
              "iso zone": clocks(NIGHT, len(values), step_s=0.02, zone="+01:00"),
              "epoch ms": [str(1709332200000 + 20 * n) for n in range(len(values))]}[clock]
    rows = [(stamp, f"{value / 100:.2f}") for stamp, value in zip(stamps, values)]
    if comma:
        rows = [tuple(cell.replace(".", ",") for cell in row) for row in rows]
    wrap = '"{}"' if quoted else "{}"
    text = "\r\n".join(mark.join(wrap.format(cell) for cell in row) for row in [("time", "Kraft [N]"), *rows])
    back = read_recording(put(tmp_path, "a.csv", text.encode(encoding)))
    assert back.samples[0].tolist() == [value / 100 for value in values] and back.units == ("N",)
    assert abs(back.sampling_rate_hz - 50) < 1e-6 and (back.start is None) == (clock == "seconds")


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    for module, name, content in (("edfio", "a.edf", edf), ("wfdb", "night.hea", record), ("h5py", "a.mat", lambda: hdf5(hdf5_night))):
        path = put(tmp_path, name, content)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=r"medkit\[formats\]") as caught:
            read_recording(path)
        assert caught.value.reason == "missing_extra"
        monkeypatch.delitem(sys.modules, module)
