"""What the repository tests need to know of the notebooks."""

import ast
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
ASSERTIONS = re.compile(r"^\s*(with\s+pytest\.raises|assert\b|test_(eq|ne|close|fail|is|shuffled|stdout|warns|eq_type)\()", re.M)


@dataclass(frozen=True)
class Cell:
    kind: str  # code or markdown
    source: str
    outputs: tuple

    @property
    def directives(self) -> dict[str, str]:
        return dict(re.findall(r"^#\|[ \t]*(\S+)[ \t]*(.*)$", self.source, re.M)) if self.kind == "code" else {}

    @property
    def exported(self) -> bool:
        return bool({"export", "exporti", "exports"} & self.directives.keys())

    @property
    def code(self) -> str:
        return "\n".join(line for line in self.source.splitlines() if not line.startswith(("#|", "%", "!")))

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.code)

    @property
    def only_imports(self) -> bool:
        return self.kind == "code" and all(isinstance(node, ast.Import | ast.ImportFrom) for node in self.tree.body)

    @property
    def asserts(self) -> bool:
        return self.kind == "code" and not self.exported and bool(ASSERTIONS.search(self.code))

    @property
    def public_names(self) -> list[str]:
        "Public names that the cell defines at its top level."
        names = []
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                names.append(node.name)
            elif isinstance(node, ast.Assign):
                names += [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.append(node.target.id)
        return [name for name in names if not name.startswith("_")]


@cache
def cells(path: Path) -> tuple[Cell, ...]:
    return tuple(
        Cell(cell["cell_type"], "".join(cell["source"]), tuple(cell.get("outputs", ())))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    )


def every_notebook() -> list[Path]:
    return [p for p in sorted(NBS.rglob("*.ipynb")) if not any(part[0] in "._" for part in p.relative_to(NBS).parts)]


def library_notebooks() -> list[Path]:
    "The notebooks that export a module: those in the numbered folders of the first level."
    return [p for p in every_notebook() if p.relative_to(NBS).parts[0][0].isdigit()]


def module_of(path: Path) -> str:
    "imaging.dicom for 12_dicom.ipynb"
    return next(cell.directives["default_exp"] for cell in cells(path) if "default_exp" in cell.directives)


def name(path: Path) -> str:
    return path.relative_to(NBS).as_posix()
