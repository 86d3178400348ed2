"""The rules of the house, held by machine: shape, layers, style, and everything generated in step with its source."""

import ast
import filecmp
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from notebooks import NBS, ROOT, cells, every_notebook, library_notebooks, module_of, name

TOP_LEVEL = {
    "nbs", "medkit", "settings.ini", "setup.py", "tests", "README.md", "data", "Makefile", "LICENSE", "CHANGELOG.md",
    "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md", "MANIFEST.in", "benchmarks", "docs", ".ci", ".gitignore", ".gitattributes",
}
LAYERS = ["0_ground", "1_imaging", "2_signals", "3_models", "4_learning", "5_stages", "6_teaching", "7_faces"]
MAY_IMPORT = {  # layer -> layers whose modules it may import, besides lower numbers of its own
    "0_ground": set(), "1_imaging": {"0_ground"}, "2_signals": {"0_ground"}, "3_models": {"0_ground"},
    "4_learning": {"0_ground", "1_imaging", "2_signals", "3_models"}, "5_stages": {"0_ground", "learning.report"},
    "6_teaching": {"0_ground"}, "7_faces": set(LAYERS[:7]),
}
ONLY_IN = {  # third-party package -> layers that may import it
    "torch": {"3_models", "4_learning"}, "torchvision": {"3_models", "4_learning"}, "fastai": {"4_learning"},
    "ipywidgets": {"7_faces"}, "dash": {"7_faces"}, "nbdev": set(), "fastcore": set(), "execnb": set(),
}
BANNED = ("fastai.vision.all", "fastai.vision.augment", "fastai.vision.learner", "fastai.medical")
LIBRARY = library_notebooks()
BY_MODULE = {module_of(path): path for path in LIBRARY}


def tracked_files() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def imported(path: Path) -> set[str]:
    "Every module that the exported cells of a notebook import, at any depth, as dotted absolute names."
    found = set()
    for cell in cells(path):
        for node in ast.walk(cell.tree) if cell.exported else ():
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name(path)}: write absolute imports; nbdev makes them relative"
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def medkit_modules(path: Path) -> set[str]:
    "The medkit modules (without the package's name) that a notebook's exported cells import."
    names = {found.removeprefix("medkit.") for found in imported(path) if found.startswith("medkit.")}
    known = {module for module in BY_MODULE for found in names if found == module or found.startswith(module + ".")}
    folders = {module for module in BY_MODULE if module.rpartition(".")[0] in names}  # from medkit import imaging
    return known | folders


def test_top_level_holds_only_what_the_design_names():
    top = {file.split("/")[0] for file in tracked_files()}
    assert top <= TOP_LEVEL, f"not in the design: {sorted(top - TOP_LEVEL)}"
    assert top >= TOP_LEVEL, f"missing: {sorted(TOP_LEVEL - top)}"


def test_setup_reads_every_field_from_settings():
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini")
    code = (ROOT / "setup.py").read_text()
    assert settings["DEFAULT"]["version"] not in code and "torch" not in code
    shown = subprocess.run([sys.executable, "setup.py", "--name", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.split()[-2:] == ["medkit", settings["DEFAULT"]["version"]]


def test_registry_of_data_sets_is_valid_toml():
    assert tomllib.loads((ROOT / "data" / "datasets.toml").read_text())


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_library_notebook_lives_in_its_layer(path):
    assert path.parent.name in LAYERS
    assert re.fullmatch(r"\d\d[a-z]?_[a-z_0-9]+", path.stem), "notebooks are called NN_name.ipynb"
    assert module_of(path).split(".")[-1].strip("_") == path.stem.split("_", 1)[1]


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_module_imports_only_lower_layers(path):
    layer = path.parent.name
    for module in medkit_modules(path):
        other = BY_MODULE[module]
        own = other.parent.name == layer and other.stem < path.stem
        allowed = own or other.parent.name in MAY_IMPORT[layer] or module in MAY_IMPORT[layer]
        assert allowed, f"{name(path)} may not import medkit.{module} ({name(other)})"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_third_party_packages_stay_in_their_layer(path):
    for found in imported(path):
        assert not found.startswith(BANNED), f"{name(path)} imports {found}"
        layers = ONLY_IN.get(found.split(".")[0])
        assert layers is None or path.parent.name in layers, f"{name(path)} may not import {found}"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_no_star_imports_and_imports_stand_alone(path):
    for cell in cells(path):
        if cell.kind != "code":
            continue
        assert not re.search(r"^\s*from \S+ import \*", cell.code, re.M), f"{name(path)}: star import"
        if not cell.only_imports and "notest" not in cell.directives:
            kinds = [node for node in cell.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not kinds, f"{name(path)}: imports mixed with other code:\n{cell.source}"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_title_and_subtitle_make_the_docstring(path):
    first = next(cell for cell in cells(path) if cell.kind == "markdown")
    assert re.match(r"# [^\n]+\n+> [^\n]{20,}", first.source), "open with `# Title` and `> one honest sentence`"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_exported_cells_are_short(path):
    for cell in cells(path):
        if cell.exported:
            lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
            assert len(lines) <= 30, f"{name(path)}: {len(lines)} lines in\n{lines[0]}"
            assert max(map(len, lines), default=0) <= 130, f"{name(path)}: a line of over 130 characters"


def functions(path: Path):
    for cell in cells(path):
        if cell.exported:
            yield from (node for node in ast.walk(cell.tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_functions_are_short(path):
    for node in functions(path):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        assert lines <= 20, f"{name(path)}: {node.name} has a body of {lines} lines; a second thought is a second function"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_public_functions_have_a_docstring(path):
    for cell in cells(path):
        for node in cell.tree.body if cell.exported else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name(path)}: {node.name} has no docstring"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_every_public_name_is_demonstrated(path):
    waiting = []
    for cell in cells(path):
        if cell.kind != "code" or cell.only_imports:
            continue
        if not cell.exported:
            waiting = []
            continue
        public = cell.public_names
        assert not (public and waiting), f"{name(path)}: {waiting} is followed by {public} without a demonstration"
        waiting += public
    assert not waiting, f"{name(path)}: {waiting} is never demonstrated"


@pytest.mark.parametrize("path", every_notebook(), ids=name)
def test_every_picture_has_a_text(path):
    for cell in cells(path):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert len(cell.directives.get("fig-alt:", "")) > 10, f"{name(path)}: a picture without `#| fig-alt:`\n{cell.source}"
        for output in cell.outputs:
            page = "".join(output.get("data", {}).get("text/html", ""))
            for tag in re.findall(r"<img[^>]*>", page):
                assert re.search(r'alt="[^"]+"', tag), f"{name(path)}: an <img> without alt"


@pytest.mark.parametrize("path", every_notebook(), ids=name)
def test_kept_outputs_are_small_and_name_no_machine(path):
    for cell in cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            assert len(data.get("image/png", "")) <= 60 * 1024, f"{name(path)}: a picture over 60 KB"
            text = "".join(output.get("text", "")) + "".join("".join(v) for k, v in data.items() if k.startswith("text/"))
            assert not re.search(r"/(root|home|work|tmp)/", text), f"{name(path)}: an output shows a machine's path"
            assert output["output_type"] != "error", f"{name(path)}: an output is a traceback"


@pytest.mark.parametrize("path", [p for p in every_notebook() if "lessons" in p.parts and p.stem != "00_tour"], ids=name)
def test_lesson_sources_hold_no_outputs(path):
    "Their answers are computed by whoever learns; the pages of the site show them executed."
    assert not [cell.source for cell in cells(path) if cell.outputs], "run `nbdev_clean --clear_all --fname NOTEBOOK`"


def test_share_of_assertion_cells(record_property):
    "At least 0.8 assertion cells per exported cell over the library notebooks; import cells count as exported."
    exported = asserting = 0
    for path in LIBRARY:
        exported += sum(cell.exported for cell in cells(path))
        asserting += sum(cell.asserts for cell in cells(path))
    share = asserting / exported
    record_property("assertion cells per exported cell", f"{asserting} / {exported} = {share:.2f}")
    record_property("notebooks", f"{len(every_notebook())}, of which {len(LIBRARY)} export a module")
    assert share >= 0.8


def test_every_refusal_has_a_way_out():
    "Each error that medkit raises gives a reason, a message and a hint; nothing swallows an exception."
    kinds = {"MedkitError", "ImageError", "SignalError", "DataError", "ModelError", "StageError", "ExerciseError", "MissingExtra"}
    for file in (ROOT / "medkit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds:
                assert len(node.args) >= 3 or any(isinstance(a, ast.Starred) for a in node.args) or node.keywords, \
                    f"{file.name}:{node.lineno} raises without a hint"
            if isinstance(node, ast.ExceptHandler):
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"{file.name}:{node.lineno} swallows"
                assert node.type is not None, f"{file.name}:{node.lineno} has a bare except"


@pytest.fixture(scope="session")
def fresh_copy(tmp_path_factory) -> Path:
    "The repository's tracked and new files in an empty folder, exported anew."
    copy = tmp_path_factory.mktemp("fresh") / "medkit"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for file in listed.stdout.splitlines():
        if (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, copy / file)
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([str(Path(sys.executable).with_name(command))], cwd=copy, check=True, capture_output=True)
    return copy


def differing(folder: str, copy: Path, pattern: str) -> list[str]:
    both = {p.relative_to(base) for base in (ROOT, copy) for p in (base / folder).rglob(pattern)
            if "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts}
    return sorted(str(p) for p in both if not (ROOT / p).exists() or not (copy / p).exists()
                  or not filecmp.cmp(ROOT / p, copy / p, shallow=False))


def test_library_is_in_step_with_the_notebooks(fresh_copy):
    assert differing("medkit", fresh_copy, "*.py") == [], "run `nbdev_export`"


def test_no_module_without_a_notebook():
    by_hand = {p for p in (ROOT / "medkit").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py")}
    from_notebooks = {ROOT / "medkit" / (module.replace(".", "/") + ".py") for module in BY_MODULE}
    assert by_hand == from_notebooks


def test_notebooks_are_clean(fresh_copy):
    assert differing("nbs", fresh_copy, "*.ipynb") == [], "run `nbdev_clean`"


def test_readme_is_what_the_index_generates():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from readme import readme_text
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert (ROOT / "README.md").read_text() == readme_text(NBS / "index.ipynb"), "run `make readme`"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "data/README.md"])
def test_every_link_leads_to_a_tracked_file(page):
    tracked = set(tracked_files())
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert target in tracked, f"{page} links to {target}"
