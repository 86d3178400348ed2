"""Build the web pages in build/docs from the notebooks, without Quarto and without the net.

nbdev strips the directives and hidden cells; Sphinx with myst-nb renders; the folders' numbers give the order.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "build" / "docs-source", ROOT / "build" / "docs"
PARTS = {  # folder of nbs -> title of its part of the table of contents
    "lessons": "Lessons", "how_to": "How to", "0_ground": "Reference: ground", "1_imaging": "Reference: images",
    "2_signals": "Reference: signals", "3_models": "Reference: models", "4_learning": "Reference: learning",
    "5_stages": "Reference: stages", "6_teaching": "Reference: teaching", "7_faces": "Reference: faces",
}


def with_alt_text(source: Path, processed: Path) -> None:
    "Write the notebook's pictures with their alternative text, which the page's HTML then carries."
    notebook = nbformat.read(processed, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    nbformat.write(notebook, processed)


def toctree(title: str, pages: list[str]) -> str:
    listed = "\n".join(pages)
    return f"\n```{{toctree}}\n:caption: {title}\n:maxdepth: 1\n:hidden:\n\n{listed}\n```\n"


def main() -> None:
    os.chdir(ROOT)
    processed = proc_nbs(force=True, n_workers=0)
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(processed, SOURCE)
    shutil.rmtree(processed)
    shutil.rmtree(TARGET, ignore_errors=True)
    for page in SOURCE.rglob("*.ipynb"):
        with_alt_text(ROOT / "nbs" / page.relative_to(SOURCE), page)
    (SOURCE / "index.ipynb").unlink(missing_ok=True)
    readme = re.sub(r"^<!--.*?-->\n+", "", (ROOT / "README.md").read_text())
    contents = ""
    for folder, title in PARTS.items():
        pages = sorted(p.relative_to(SOURCE).with_suffix("").as_posix() for p in (SOURCE / folder).rglob("*.ipynb"))
        contents += toctree(title, pages) if pages else ""
    shutil.copytree(ROOT / "docs" / "images", SOURCE / "docs" / "images", dirs_exist_ok=True)
    for extra in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        shutil.copy2(ROOT / extra, SOURCE / extra)
    contents += toctree("Project", ["CONTRIBUTING", "CHANGELOG", "SECURITY"])
    (SOURCE / "index.md").write_text(readme + contents)
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", "docs", str(SOURCE), str(TARGET)]
    subprocess.run(command, check=True)
    print(f"build/docs/index.html: {len(list(TARGET.rglob('*.html')))} pages")


if __name__ == "__main__":
    main()
