"""Every notebook runs from top to bottom, offline, in its time and memory.

This is nbdev's own test function (`nbdev.test.test_nb`), one process a notebook, so that pytest's closing line counts them;
a second run of `nbdev_test` would repeat the same cells. The processes are forked from one that has imported the large packages of
others, which took half of their time; medkit itself each imports anew. A notebook that asserts what is not imported starts bare.
The tour is run by test_tour.py, through `medkit tour`.
"""

import multiprocessing
import os
import resource
import sys
import warnings

import pytest
from notebooks import ROOT, every_notebook, library_notebooks, name

NOTEBOOKS = [path for path in every_notebook() if path.stem != "00_tour"]
LIBRARY = set(library_notebooks())
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([
    "nbdev.test", "torch", "fastai.vision.all", "matplotlib.pyplot", "pandas", "scipy.ndimage", "scipy.signal", "skimage.measure",
    "sklearn.metrics", "pydicom.data", "ipywidgets", "IPython.core.interactiveshell",
])


def run(path, environment: dict[str, str], log) -> None:
    "What the process of a notebook does; what it says stands in `log`."
    from nbdev.config import get_config
    from nbdev.test import test_nb

    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    passed, seconds = test_nb(path, skip_flags=get_config().tst_flags.split(), basepath=get_config().config_path)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.1f} s, {peak_mb:.0f} MB", file=sys.stderr)
    sys.exit(0 if passed else 1)


@pytest.fixture(scope="module")
def forks():
    "Processes that start with the large packages in place: the first one waits for them, so that no notebook's time does."
    first = FORKS.Process(target=int)
    first.start()
    first.join()
    return FORKS


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_runs(path, tmp_path, forks):
    limit_s = 90 if path in LIBRARY else 300  # the budgets are 30 s and 60 s: a busy machine is no fault
    environment = {**os.environ, "MEDKIT_CACHE": str(tmp_path), "MEDKIT_OFFLINE": "1"}
    environment.pop("MEDKIT_DATA", None)  # a notebook needs nothing but the checkout
    bare = "not in sys.modules" in path.read_text(encoding="utf-8")
    process = (multiprocessing.get_context("spawn") if bare else forks).Process(target=run, args=(path, environment, tmp_path / "log"))
    process.start()
    process.join(limit_s)
    late = process.is_alive()
    process.kill()
    said = (tmp_path / "log").read_text(errors="replace")[-4000:] if (tmp_path / "log").exists() else ""
    print(said)
    assert not late, f"not at its end after {limit_s} s\n{said}"
    assert process.exitcode == 0, said
    peak_mb = float(said.rsplit(",", 1)[1].split()[0])
    assert peak_mb < 3000, f"{peak_mb:.0f} MB"
