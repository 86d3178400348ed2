"""Build the web pages in build/docs from the notebooks, without Quarto and without the net.

nbdev executes what `show_doc` needs and drops hidden cells; Sphinx with myst-nb renders. The folders' numbers give the order.
Lessons are shown solved and executed, each answer folded; their sources hold no outputs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbdev.serve import proc_nbs
from render import execute

from medkit.teach.build import copy_of
from medkit.teach.exercise import read_lessons

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "build" / "docs-source", ROOT / "build" / "docs"
REFERENCE = {  # folder of nbs -> title and subtitle of its part of the reference
    "0_ground": ("Ground", "Errors, files, figures, data sets and the doctor, on which all the rest stands."),
    "1_imaging": ("Images", "From DICOM files to volumes with their place in the patient."),
    "2_signals": ("Signals", "From what a bed's sensor records to heart and breathing rates that can be trusted."),
    "3_models": ("Models", "Small networks that train on a laptop."),
    "4_learning": ("Learning", "Splits by patient, training, and scores with intervals."),
    "5_stages": ("Stages", "From an idea to the gate before a deployment."),
    "6_teaching": ("Teaching", "Exercises and their checks."),
    "7_faces": ("Faces", "Viewers and the command line."),
}
LESSONS = read_lessons(ROOT / "nbs" / "lessons")
STRIPPED = set((ROOT / "nbs" / "lessons").glob("*/"))
LIVE = "application/vnd.jupyter.widget-view+json"  # of a widget; its scripts would come from another host


def page(source: Path, processed: Path) -> nbformat.NotebookNode:
    "A processed notebook as a page: title and introduction of its source, `show_doc` as text, pictures with their words."
    opening = next(cell for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "markdown")
    notebook = nbformat.read(processed, as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type != "raw" and cell.source != opening.source
            and not cell.source.startswith("<!-- WARNING")]
    notebook.cells = [nbformat.v4.new_markdown_cell(opening.source), *map(shown, kept)]
    notebook.metadata.pop("widgets", None)
    return notebook


def shown(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "A cell as it is printed: without directives, and with the alternative text of its picture."
    if cell.cell_type != "code":
        return cell
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
    if cell.source.startswith("show_doc"):
        texts = [output.data.get("text/markdown", "") for output in cell.outputs if "data" in output]
        return nbformat.v4.new_markdown_cell("\n".join(text.removeprefix("---\n") for text in texts))
    for output in cell.outputs:
        output.get("data", {}).pop(LIVE, None)
        if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return cell


def lesson_page(source: Path) -> nbformat.NotebookNode:
    "A lesson, or a stage of the project, executed: the answers folded, the questions as text."
    lesson = next((one for one in LESSONS if one.path == source), None)
    notebook = copy_of(lesson, solved=True) if lesson else nbformat.read(source, as_version=4)
    hidden = re.compile(r"^(#\|\s*hide\b|quiz\()", re.M)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    for cell in notebook.cells:
        if "hide-input" in cell.metadata.get("tags", ()):
            cell.metadata["mystnb"] = {"code_prompt_show": "Show the answer", "code_prompt_hide": "Hide the answer"}
    notebook.cells = [shown(cell) for cell in notebook.cells if cell.cell_type != "code" or not hidden.search(cell.source)]
    return notebook


def contents(title: str, pages: list[str], words: str = "") -> str:
    "A page that leads to others."
    return f"# {title}\n\n{words}\n\n" + toctree(pages)


def toctree(pages: list[str], *options: str) -> str:
    return "\n".join(["```{toctree}", ":maxdepth: 1", *options, "", *pages, "```", ""])


def write_contents() -> None:
    "The front page, and a table of contents for each part of the site."
    parts = []
    for folder, (title, words) in REFERENCE.items():
        if pages := sorted(path.stem for path in (SOURCE / folder).glob("*.ipynb")):
            (SOURCE / folder / "index.md").write_text(contents(title, pages, words))
            parts.append(f"{folder}/index")
    (SOURCE / "reference.md").write_text(contents("Reference", parts, "The library, from the ground up."))
    front = []
    for folder, title in (("lessons", "Lessons"), ("how_to", "How to")):
        if pages := sorted(str(path.relative_to(SOURCE / folder).with_suffix("")) for path in (SOURCE / folder).rglob("*.ipynb")):
            (SOURCE / folder / "index.md").write_text(contents(title, pages))
            front.append(f"{folder}/index")
    project = ["CONTRIBUTING", "CHANGELOG", "SECURITY"]
    for name in project:
        (SOURCE / f"{name}.md").write_text((ROOT / f"{name}.md").read_text().replace("](nbs/", "]("))
    (SOURCE / "project.md").write_text(contents("Project", project))
    readme = re.sub(r"^<!--.*?-->\s*", "", (ROOT / "README.md").read_text(), flags=re.S).replace("](nbs/", "](")
    (SOURCE / "index.md").write_text(readme + "\n" + toctree([*front, "reference", "project"], ":hidden:"))


def main() -> None:
    os.chdir(ROOT)
    for folder in (SOURCE, TARGET):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(proc_nbs(force=True, n_workers=0), SOURCE)
    finally:
        shutil.rmtree(ROOT / "_proc", ignore_errors=True)
    (SOURCE / "index.ipynb").unlink(missing_ok=True)
    for path in SOURCE.rglob("*.ipynb"):
        source = ROOT / "nbs" / path.relative_to(SOURCE)
        nbformat.write(lesson_page(source) if source.parent in STRIPPED else page(source, path), path)
    (SOURCE / "docs" / "images").mkdir(parents=True)
    for path in (*ROOT.glob("docs/images/*.*"), ROOT / "CITATION.cff"):  # what the front page shows and names
        shutil.copy2(path, SOURCE / path.relative_to(ROOT))
    write_contents()
    command = [sys.executable, "-m", "sphinx", "-q", "-j", "2", "-b", "html", "-c", "docs", str(SOURCE), str(TARGET)]
    subprocess.run(command, check=True)
    print(f"build/docs/index.html: {len(list(TARGET.rglob('*.html')))} pages")


if __name__ == "__main__":
    main()
