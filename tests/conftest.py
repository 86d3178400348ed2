"""What every test shares: one thread, no network by default, the real recordings when they are there."""

import os
import re
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # two torch threads on two busy cores cost 4 to 8 times one
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402
from chromium import playwright  # noqa: E402, F401 (a fixture of every browser test)
from hypothesis import settings  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


settings.register_profile("steady", derandomize=True)  # main is green or red, not now and then
settings.load_profile("default" if os.environ.get("MEDKIT_EXPLORE") else "steady")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config):
    if config.getoption("dist", "no") == "loadgroup" and pytest.version_tuple >= (9, 2):
        raise pytest.UsageError("beside pytest 9.2 pytest-xdist forgets which tests share a browser: pip install 'pytest<9.2'")
    for marker in (
        "slow: kills, soaks and bundles, run by `make test-slow`",
        "notebook: executes a whole notebook",
        "browser: drives Chromium",
        "tour: executes the tour",
    ):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config, items):
    if moving := [item.nodeid for item in items if re.search("at 0x[0-9a-f]+", item.nodeid)]:
        raise pytest.UsageError(f"a memory address in a test's name differs between workers: {moving[0]}")
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run `make test-slow`"))


def pytest_terminal_summary(terminalreporter):
    "Print what tests measured (`record_property`), whichever worker they ran on."
    measured = {
        (name, value) for reports in terminalreporter.stats.values() for report in reports
        if getattr(report, "when", "") == "call" for name, value in report.user_properties
    }
    if measured:
        terminalreporter.section("measured")
    for name, value in sorted(measured):
        terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    "The folder of real recordings; a test that needs it is skipped where MEDKIT_DATA is not set."
    folder = os.environ.get("MEDKIT_DATA")
    if not folder:
        pytest.skip("real recordings: set MEDKIT_DATA to their folder")
    assert Path(folder).is_dir(), f"MEDKIT_DATA names {folder}, which is not a folder"
    return Path(folder)
