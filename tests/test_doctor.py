"""The doctor on healthy and sick machines."""

import json
import os
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit import doctor, machine, routes
from medkit.checks import cover_address
from medkit.doctor import Check, Report, run_doctor


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDKIT_OFFLINE", "1")  # the network has tests of its own
        yield from looked_at()


def looked_at():
    began = time.monotonic()
    found = run_doctor()
    assert time.monotonic() - began < 60  # about 6 s on a free machine
    yield found


def by_name(report):
    return {check.name: check for check in report.checks}


def test_every_line_has_a_state_and_every_trouble_a_remedy(report):
    assert set(by_name(report)) >= {
        "Python", "medkit", "packages", "torch", "torch threads", "codecs", "jupyterlab", "ipywidgets", "disk", "memory",
        "cache", "MEDKIT_DATA", "proxy", "certificates", "pip", "uv", "torchvision", "widgets", "kernel", "ports", "working folder",
        "temporary folder", "home", "clock", "package index", "model download", "torch download", "data sets",
    }
    for check in report.checks:
        assert check.state in ("ok", "warn", "fail") and check.value
        assert bool(check.remedy) == (check.state != "ok"), check


def test_torch_is_probed_elsewhere(report, monkeypatch):
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    assert by_name(report)["torch"].state == "ok"
    code = "import sys; from medkit.doctor import run_doctor; run_doctor(); sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_report_is_json_text_and_html(report):
    plain = json.loads(json.dumps(report.as_dict()))
    assert [row["name"] for row in plain["checks"]] == [check.name for check in report.checks]
    assert plain["state"] == report.state and {"state", "colour", "value", "remedy"} <= set(plain["checks"][0])
    assert all(check.value in str(report) for check in report.checks)
    assert "<script" not in report._repr_html_()


@given(st.lists(st.sampled_from(["ok", "warn", "fail"])))
def test_the_worst_line_decides(states):
    report = Report(tuple(Check(str(number), state, "v", "r") for number, state in enumerate(states)))
    assert report.state == max([*states, "ok"], key=["ok", "warn", "fail"].index)
    assert len(str(report).splitlines()) == 2 * len(states)


word = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@given(user=word, secret=st.text(st.sampled_from(list("abcXYZ019%:!$/@, ")), min_size=3, max_size=12).map(lambda text: "s3" + text + "k"),
       scheme=st.sampled_from(["http://", "https://", "socks5://", ""]))
def test_no_password_is_shown(user, secret, scheme):
    shown = cover_address(f"{scheme}{user}:{secret}@proxy.example:3128")
    assert secret not in shown and "proxy.example:3128" in shown


def test_passwords_do_not_reach_the_report(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://nurse:hunter2@proxy.example:8080/")
    checks = list(routes.check_proxies())
    assert "hunter2" not in repr(checks) and "nurse" not in repr(checks) and "proxy.example:8080" in repr(checks)


def test_sick_machine(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDKIT_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    found = {check.name: check.state for look in (machine.check_folders, routes.check_certificates) for check in look()}
    assert (found["cache"], found["MEDKIT_DATA"], found["certificates"]) == ("fail", "fail", "fail")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_package_of_the_same_name_is_named(tmp_path, monkeypatch):
    "An installed medkit-lib, as its metadata would stand in site-packages."
    info = tmp_path / "medkit_lib-0.18.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: medkit-lib\nVersion: 0.18\n")
    (info / "top_level.txt").write_text("medkit\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (check,) = doctor._check_medkit()
    assert check.state == "fail" and "medkit-lib" in check.value and "pip uninstall medkit-lib" in check.remedy


def test_medkit_from_an_unexpected_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.resources, "files", lambda name: tmp_path / "medkit")
    (check,) = doctor._check_medkit()
    assert check.state == "warn" and str(tmp_path) in check.value


def test_dead_torch_is_a_red_line(monkeypatch):
    monkeypatch.setattr(doctor, "_TORCH_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (check,) = doctor._check_torch()
    assert check.state == "fail" and "torch" in check.remedy


def test_slow_threads_are_amber(monkeypatch):
    slow = {"version": "2", "device": "cpu", "name": "", "threads": 2, "times": {"1": 0.1, "2": 0.4}, "torchvision": "0"}
    monkeypatch.setattr(doctor, "_probe", lambda code: slow)
    found = {check.name: check for check in doctor._check_torch()}
    assert found["torch threads"].state == "warn" and "OMP_NUM_THREADS=1" in found["torch threads"].remedy
    assert "4.0 times slower" in found["torch threads"].value and found["torchvision"].state == "ok"


def test_a_check_that_breaks_is_a_line(monkeypatch):
    def broken():
        raise MemoryError("at http://nurse:hunter2@proxy:1")
    monkeypatch.setattr(doctor, "_LOOKS", {"Python": doctor._check_python, "room": broken})
    found = by_name(run_doctor())
    assert found["room"].state == "fail" and found["Python"].state == "ok" and "hunter2" not in found["room"].value
