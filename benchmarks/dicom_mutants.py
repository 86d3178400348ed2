"""Malformed files, seeded: what `convert` and `read_image` make of them, judged file by file.

`python dicom_mutants.py --seed 7` prints the table for one seed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from dicom_reference import PACKAGED, reference
from PIL import Image
from processes import run_python

HANG_S, MEMORY_MB = 15, 2048
BASES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_small_odd.dcm",
    "image_dfl.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "examples_palette.dcm",
    "SC_rgb_rle_2frame.dcm",
)

CONVERT = """
import json, sys
from medkit import imaging
report = imaging.convert(sys.argv[1], sys.argv[2], workers=1)
json.dump([dict(row) for row in report.files], open(sys.argv[3], "w"))
"""

# every file in a child of its own, so that one that dies, hangs or grows is told from the rest
READ = """
import json, os, resource, signal, sys
from medkit import imaging
from medkit.errors import MedkitError
imaging.render_frame, imaging.read_image
def look(path):
    try:
        image = imaging.read_image(path)
        imaging.render_frame(image, "header", 0, 8)
        repr(image)
        return "picture"
    except MedkitError as error:
        return "MedkitError " + error.reason
    except BaseException as error:
        return "other " + type(error).__name__
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for path in sys.argv[2:]:
    answer, write = os.pipe()
    if not (pid := os.fork()):
        resource.setrlimit(resource.RLIMIT_AS, (pages + (int(sys.argv[1]) << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        signal.alarm(15)
        os.write(write, look(path).encode())
        os._exit(0)
    os.close(write)
    said, status = os.read(answer, 999).decode(), os.waitpid(pid, 0)[1]
    os.close(answer)
    died = "hang" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "crash"
    print(json.dumps([path, said or died]))
"""


def generator() -> Path | None:
    "The corpus maker that lives outside the project, where MEDKIT_FUZZ names its folder."
    script = Path(os.environ.get("MEDKIT_FUZZ", "none")) / "make_dicom_corpus.py"
    return script if script.is_file() else None


def make(folder: Path, seed: int) -> list[dict]:
    "The corpus of one seed: id, file, cls, base, what, expect."
    subprocess.run(
        [sys.executable, str(generator()), str(folder), "--seed", str(seed)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def make_own(folder: Path, seed: int, mutants: int = 120) -> list[dict]:
    "Byte flips, cuts, swapped blocks and edited tags on pydicom's packaged files; needs nothing from elsewhere."
    folder.mkdir(parents=True)
    choose, rows = random.Random(seed), []
    for number in range(mutants):
        base = BASES[number % len(BASES)]
        data = (PACKAGED / base).read_bytes()
        kind, what, data, expect = (
            ("base", "unmutated", data, "same") if number < len(BASES) else mutate(data, base, choose)
        )
        name = f"{number:03d}_{kind}.dcm"
        (folder / name).write_bytes(data)
        rows.append({"id": name, "file": name, "cls": kind, "base": base, "what": what, "expect": expect})
    return rows


def mutate(data: bytes, base: str, choose: random.Random) -> tuple[str, str, bytes, str]:
    "Kind, what was done, the bytes, and what may come of it."
    kind = choose.choice(("flip", "flip", "cut", "swap", "length", "rows"))
    at = choose.randrange(132, len(data) - 8)
    if kind == "cut":  # a cut in the last bytes of an encapsulated file may lose only its delimiter
        native = base in ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm")
        at = min(at, trailing(base) or at)
        return kind, f"cut at byte {at}", data[:at], "error" if native else "nocrash"
    edited = bytearray(data)
    if kind == "flip":
        for _ in range(choose.choice((1, 2, 8, 64))):
            edited[choose.randrange(132, len(data))] ^= 1 << choose.randrange(8)
    if kind == "swap":
        other = choose.randrange(132, len(data) - 8)
        edited[at : at + 8], edited[other : other + 8] = data[other : other + 8], data[at : at + 8]
    if kind == "length":  # a length that claims more than there is
        edited[at : at + 4] = choose.choice((b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\0\0\0\x7f", b"\0\0\0\0"))
    if kind == "rows" and (place := data.find(b"\x28\0\x10\0US\2\0")) > 0:
        edited[place + 8 : place + 10] = choose.choice((b"\0\0", b"\xff\xff", b"\1\0"))
        return kind, "Rows 0, 65535 or 1", bytes(edited), "error"
    return kind, f"near byte {at}", bytes(edited), "nocrash"


def trailing(base: str) -> int | None:
    "Bytes up to the end of the pixels of an uncompressed base; CT_small has padding behind them."
    import pydicom

    dataset = pydicom.dcmread(PACKAGED / base)
    element = dataset.get_item("PixelData")
    return (
        None if dataset.file_meta.TransferSyntaxUID.is_compressed else element.value_tell + len(dataset.PixelData) - 2
    )


def inputs_in(folder: Path) -> int:
    "What counts as one input: files, links, pipes, empty folders."
    return sum(path.is_symlink() or not path.is_dir() or not any(path.iterdir()) for path in folder.rglob("*"))


def picture_of(row: dict, target: Path) -> np.ndarray | None:
    return np.asarray(Image.open(target / row["outputs"][0])).astype(int) if row["outputs"] else None


def judge_row(expect: str, row: dict, picture: np.ndarray | None, base: np.ndarray | None) -> str | None:
    "What is wrong with the outcome of one file, or None."
    warned = row["status"] == "ok_warn" or bool(row.get("notes")) or bool(row["reason"])
    if picture is None and not row["reason"]:
        return "no picture and no reason"
    if expect == "error" and picture is not None and not warned:
        return "silently wrong"
    if (
        expect in ("same", "same_or_error")
        and picture is not None
        and base is not None
        and not np.array_equal(picture, base)
    ):
        return "another picture" if warned else "silently wrong"
    if expect == "same" and picture is None:
        return "valid file refused" if base is not None else None  # a base beyond every codec: the corpus counts those
    if expect == "invert" and (picture is None or not np.array_equal(picture, 255 - base)):
        return "valid file refused" if picture is None else "silently wrong"
    return None


def run(corpus: Path, expected: list[dict], scratch: Path) -> dict:
    "Convert the corpus in a process of its own and read each file alone; every count of the bar, and the faults by file."
    inside = scratch / "tmp"
    inside.mkdir()
    before = {path.name for path in scratch.iterdir()} | {"out", "rows.json"}
    used = run_python(
        CONVERT, corpus, scratch / "out", scratch / "rows.json", timeout=400, env={"TMPDIR": str(inside)}, every_s=0.03
    )
    rows = (
        {row["source"]: row for row in json.loads((scratch / "rows.json").read_text())} if used.returncode == 0 else {}
    )
    faults = judge_all(rows, expected, scratch / "out")
    alone = read_alone([corpus / row["file"] for row in expected])
    strays = [path.name for path in scratch.iterdir() if path.name not in before] + [
        path.name for path in inside.iterdir()
    ]
    strays += [path.name for path in Path(tempfile.gettempdir()).glob("ESCAPED*")]
    if used.returncode:
        faults.append(("-", f"exit code {used.returncode}", used.errors.strip()[-300:]))
    return {
        "files": len(expected),
        "crash": (used.returncode != 0) + alone["crash"],
        "stderr": used.errors[-300:],
        "hang": sum((row.get("seconds") or 0) > HANG_S or row["reason"] == "timed_out" for row in rows.values())
        + alone["hang"],
        "over memory": int(used.peak_mb > MEMORY_MB),
        "peak_mb": round(used.peak_mb),
        "wall_s": round(used.wall_s, 1),
        "silently wrong": sum(what == "silently wrong" for _, what, _ in faults),
        "missing rows": inputs_in(corpus) - len(rows),
        "outside the folder": len(strays),
        "other families": sum(count for what, count in alone.items() if what.startswith("other")),
        "contained": {
            reason: count
            for reason, count in Counter(row["reason"] for row in rows.values()).items()
            if reason in ("crashed", "timed_out", "out_of_memory")
        },
        "faults": faults + [(name, "read alone", what) for name, what in alone["names"]],
        "strays": strays,
    }


def judge_all(rows: dict[str, dict], expected: list[dict], target: Path) -> list[tuple[str, str, str]]:
    "Id, fault and what was done, for every file whose outcome is not allowed."
    unmutated = {
        row["base"]: shown(row["base"], rows.get(row["file"]), target) for row in expected if row["cls"] == "base"
    }
    faults = []
    for row in expected:
        if found := rows.get(row["file"]):
            if wrong := judge_row(row["expect"], found, picture_of(found, target), unmutated.get(row["base"])):
                faults.append(
                    (row["id"], wrong, f"{row['what'][:60]} ({row['base']}): {found['status']}, {found['reason']}")
                )
        else:
            faults.append((row["id"], "missing row", row["what"][:60]))
    return faults


def shown(base: str, row: dict | None, target: Path) -> np.ndarray | None:
    "The picture of a valid base: medkit's, else the reference's, or None where no codec decodes it."
    if row and row["outputs"]:
        return picture_of(row, target)
    with suppress(Exception):
        return reference(PACKAGED / base).astype(int)
    return None


def read_alone(paths: list[Path]) -> Counter:
    "How `read_image` and `render_frame` end on each file: counts, and the names that ended badly."
    used = run_python(READ, MEMORY_MB, *paths, timeout=600)
    ended = [json.loads(line) for line in used.output.splitlines()]
    counts: Counter = Counter(what for _, what in ended)
    counts["crash"] += len(paths) - len(ended)
    counts["names"] = [
        (Path(name).name, what) for name, what in ended if what in ("crash", "hang") or what.startswith("other")
    ]
    return counts


BARS = ("crash", "hang", "over memory", "silently wrong", "missing rows", "outside the folder", "other families")


def measure(seed: int, own: bool = False) -> dict:
    "Make the corpus of a seed, run it, remove it."
    with tempfile.TemporaryDirectory() as folder:
        corpus, scratch = Path(folder) / "in", Path(folder) / "work"
        scratch.mkdir()
        expected = make_own(corpus, seed) if own else make(corpus, seed)
        return run(corpus, expected, scratch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--own", action="store_true", help="the generator of this file, not that of MEDKIT_FUZZ")
    options = parser.parse_args()
    for name, value in measure(options.seed, options.own).items():
        print(name, *(["", *value] if name == "faults" else [value]), sep="\n    " if name == "faults" else ": ")
