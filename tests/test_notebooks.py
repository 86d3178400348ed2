"""Every notebook runs from top to bottom, offline, in its time and memory.

This is nbdev's own test function (`nbdev.test.test_nb`), one process a notebook, so that pytest's closing line counts them;
a second run of `nbdev_test` would repeat the same cells. The tour is run by test_tour.py, through `medkit tour`.
"""

import os
import subprocess
import sys

import pytest
from notebooks import ROOT, every_notebook, library_notebooks, name

RUN = """
import resource, sys
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
passed, seconds = test_nb(Path(sys.argv[1]), skip_flags=get_config().tst_flags.split(), basepath=get_config().config_path)
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{seconds:.1f} s, {peak_mb:.0f} MB", file=sys.stderr)
sys.exit(0 if passed else 1)
"""
NOTEBOOKS = [path for path in every_notebook() if path.stem != "00_tour"]
LIBRARY = set(library_notebooks())


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_runs(path, tmp_path):
    limit_s = 90 if path in LIBRARY else 300  # the budgets are 30 s and 60 s: a busy machine is no fault
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "MEDKIT_CACHE": str(tmp_path), "MEDKIT_OFFLINE": "1"}
    env.pop("MEDKIT_DATA", None)  # a notebook needs nothing but the checkout
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit_s
    )
    print(done.stderr[-4000:])
    assert done.returncode == 0, done.stderr[-4000:]
    peak_mb = float(done.stderr.rsplit(",", 1)[1].split()[0])
    assert peak_mb < 3000, f"{peak_mb:.0f} MB"
