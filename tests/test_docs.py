"""The web pages are built from the notebooks, and need no other host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT

TELLS_OF_MARKS = {"CONTRIBUTING.html", "6_teaching/62_build.html", "how_to/write_a_lesson.html"}  # where a mark is what is shown
OTHER_HOST = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]*"')


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    for module in ("sphinx", "myst_nb", "pydata_sphinx_theme"):
        pytest.importorskip(module, reason='the pages need `pip install "medkit[docs]"`')
    done = subprocess.run([sys.executable, "docs/build.py"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr, done.stderr[-4000:]
    built = ROOT / "build" / "docs"
    return {path.relative_to(built).as_posix(): path.read_text() for path in built.rglob("*.html") if "_static" not in path.parts}


@pytest.mark.notebook
def test_pages_are_whole_and_need_no_other_host(pages):
    notebooks = [path.relative_to(ROOT / "nbs").with_suffix(".html").as_posix() for path in ROOT.glob("nbs/*/*.ipynb")]
    assert set(notebooks) <= set(pages)
    assert not Path(ROOT / "_proc").exists()
    for name, page in pages.items():
        assert not OTHER_HOST.findall(page), name
        assert len(re.findall("<h1", page)) == 1, f"{name}: one title"
        assert all(re.search(r'alt="[^"]{5,}"', image) for image in re.findall(r"<img\b[^>]*>", page)), f"{name}: a picture without words"
        for cell in re.findall(r"<pre>.*?</pre>", page, re.S):
            words = re.sub(r"<[^>]+>", "", cell)
            assert name in TELLS_OF_MARKS or not re.match(r"\s*(#\||show_doc\()", words), f"{name}: {words[:60]}"
