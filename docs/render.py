"""Run notebooks and keep their outputs, so that a reader on a code host sees the pictures.

    python docs/render.py                         every library notebook, how-to page, the index and the tour
    python docs/render.py nbs/1_imaging/*.ipynb   only these

Pictures get the text of their cell's `#| fig-alt:` line, which nbconvert and screen readers use. A picture too large for git
loses colours, then pixels, until it fits; the live notebook keeps it whole. Real recordings are never rendered.
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONWARNINGS="ignore", PYTHONHASHSEED="0", COLUMNS="100",
                  MEDKIT_OFFLINE="1")
os.environ.pop("MEDKIT_DATA", None)

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from PIL import Image  # noqa: E402
from nbdev.clean import clean_nb  # noqa: E402
from nbdev.config import get_config  # noqa: E402
from execnb.nbio import dict2nb, write_nb  # noqa: E402

from medkit.tour import _private_kernel  # noqa: E402
from medkit.widgets.viewer import small_png  # noqa: E402

FIG_ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)$", re.MULTILINE)
LARGEST_PICTURE = 60 * 1024  # bytes, as base64 text


def skipped(cell, flags: set[str]) -> bool:
    "True for a code cell that plain `nbdev_test` would not run."
    directives = re.findall(r"^#\|[ \t]*(\S+)[ \t]*(.*)$", cell.source, re.MULTILINE)
    return any(name in flags or (name == "eval:" and value.strip() == "false") for name, value in directives)


def fit(picture: str) -> str:  # PNG as base64 text
    "`picture`, with fewer colours or pixels where it is too large for git."
    image, scale = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), 1.0
    while len(picture) > LARGEST_PICTURE:
        for colours in (128, 48):
            small = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "PNG")
            picture = base64.b64encode(small_png(buffer.getvalue(), colours)).decode()
            if len(picture) <= LARGEST_PICTURE:
                break
        scale *= 0.85
    return picture


def describe_pictures(cell) -> None:
    "Put the cell's alternative text on each of its pictures."
    alt = FIG_ALT.search(cell.source)
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}):
            output["data"]["image/png"] = fit(output["data"]["image/png"])
        if "image/png" in output.get("data", {}) and alt:
            output["metadata"] = {"image/png": {"alt": alt.group(1).strip()}}


def execute(notebook, folder: Path) -> None:
    "Run what `nbdev_test` would run, and keep what a reader can use of its outputs."
    flags = set(get_config().tst_flags.split())
    whole = list(notebook.cells)
    notebook.cells = [cell for cell in whole if cell.cell_type != "code" or not skipped(cell, flags)]
    resources = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory(prefix="medkit-") as sockets:
        NotebookClient(notebook, km=_private_kernel(Path(sockets)), timeout=300, resources=resources,
                       store_widget_state=False).execute(cleanup_kc=True)
    notebook.cells = whole
    for cell in (cell for cell in whole if cell.cell_type == "code"):
        describe_pictures(cell)
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if len(output.get("data", {})) > 1:  # a widget's random id; its still picture stays
                output["data"].pop("application/vnd.jupyter.widget-view+json", None)


def render(path: Path) -> int:  # size of the largest picture, bytes
    "Execute `path` from top to bottom and write it back with its outputs."
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent)
    pictures = [
        len(output["data"]["image/png"])
        for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    clean = dict2nb(notebook)
    clean_nb(clean)
    write_nb(clean, path)
    return max(pictures, default=0)


def main(names: list[str]) -> None:
    os.chdir(ROOT)
    everything = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb"))
                  if ("lessons" not in p.parts or p.stem == "00_tour") and p.name[0] not in "._"]
    for path in [Path(name).resolve() for name in names] or everything:
        largest = render(path)
        print(f"{path.relative_to(ROOT)}  largest picture {largest / 1024:.0f} KB", flush=True)
        if largest > LARGEST_PICTURE:
            sys.exit(f"{path.name} has a picture of {largest / 1024:.0f} KB; at most {LARGEST_PICTURE // 1024} KB: "
                     "make the figure smaller or lower its dpi")


if __name__ == "__main__":
    main(sys.argv[1:])
