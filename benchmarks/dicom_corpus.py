"""How many of 173 real, odd files each program shows as the standard says, and how closely medkit agrees with dcmtk."""

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import dicom_peers
import numpy as np
from dicom_reference import agreement, corpus, judge, reference
from medkit import imaging
from PIL import Image

VERDICTS = ("good", "tone off", "inverted", "wrong", "blank", "error", "crash")


@dataclass
class CorpusResult:
    "What each program made of every file that can be decoded."

    files: int  # with pixels
    paths: list[Path]  # those that the reference decodes
    verdicts: dict[str, list[str]] = field(default_factory=dict)  # program: verdict of each
    pictures: dict[str, list] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # program: why
    rows: list[dict] = field(default_factory=list)  # medkit's rows of the same files
    undecodable: list[tuple[Path, dict]] = field(default_factory=list)  # with medkit's rows

    def count(self, program: str) -> Counter:
        return Counter(self.verdicts[program])


def decodable(paths: list[Path]) -> dict[Path, np.ndarray]:
    "The reference picture of every file that pydicom and its codecs decode."
    found = {}
    for path in paths:
        try:
            found[path] = reference(path)
        except Exception:  # the count of the rest is printed
            continue
    return found


def converted(paths: list[Path], folder: Path) -> list[tuple[dict, np.ndarray | str]]:
    "The row and the first picture of each file, by one `convert` of a folder with copies of all."
    (folder / "in").mkdir(parents=True)
    names = [f"{number:03d}_{path.name}" for number, path in enumerate(paths)]
    for name, path in zip(names, paths):
        shutil.copyfile(path, folder / "in" / name)
    report = imaging.convert(
        folder / "in", folder / "out", workers=1, deidentify=False
    )  # peers do not refuse burned-in text either
    rows = {row["source"]: row for row in report.files}
    return [(rows[name], first_picture(rows[name], folder / "out")) for name in names]


def first_picture(row: dict, target: Path) -> np.ndarray | str:
    "The first picture a row names (a duplicate names the one that was kept), or its reason."
    return np.asarray(Image.open(target / row["outputs"][0])) if row["outputs"] else f"{row['status']}: {row['reason']}"


def verdict(picture: np.ndarray | str, truth: np.ndarray) -> str:
    if isinstance(picture, str):
        return "crash" if picture.startswith("crash") else "error"
    return judge(picture, truth)


def measure(folder: Path, peers: bool = True) -> CorpusResult:
    "medkit and every peer that is installed over the corpus; `folder` is scratch."
    paths = corpus()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truths = decodable(paths)
        ours = converted(paths, folder / "medkit")
    result = CorpusResult(len(paths), list(truths))
    by_path = dict(zip(paths, ours))
    result.rows = [by_path[path][0] for path in truths]
    result.undecodable = [(path, by_path[path][0]) for path in paths if path not in truths]
    pictures = {"medkit": [by_path[path][1] for path in truths]}
    for number, title in enumerate(dicom_peers.PEERS if peers else ()):
        if why := dicom_peers.missing(title):
            result.left_out[title] = why
        else:
            pictures[title] = dicom_peers.pictures(title, result.paths, folder / f"peer{number}")
    result.pictures = pictures
    result.verdicts = {
        title: [verdict(*pair) for pair in zip(found, truths.values())] for title, found in pictures.items()
    }
    return result


def silent(result: CorpusResult) -> list[str]:
    "Files whose picture is not good though their row says ok, without a reason or a note."
    return [
        path.name
        for path, row, found in zip(result.paths, result.rows, result.verdicts["medkit"])
        if found not in ("good", "error") and row["status"] == "ok" and not row.get("notes")
    ]


def unnamed(result: CorpusResult) -> list[str]:
    "Files without a picture whose row gives no reason."
    rows = [*zip(result.paths, result.rows), *result.undecodable]
    return [path.name for path, row in rows if not row["outputs"] and not row["reason"]]


def agreement_with_dcmtk(
    result: CorpusResult, program: str = "dcmtk +Wi 1, else +Wm"
) -> tuple[int, int, int, list[str]]:
    "Samples within one grey level, samples, files compared, and the files below 99.9 %."
    close = samples = files = 0
    odd = []
    for number, path in enumerate(result.paths):
        mine, theirs = result.pictures["medkit"][number], result.pictures[program][number]
        if result.verdicts[program][number] != "good" or isinstance(mine, str) or mine.shape != theirs.shape:
            continue
        near, of = agreement(mine, theirs)
        close, samples, files = close + near, samples + of, files + 1
        odd += [f"{path.name} {near / of:.2%}"] if near < 0.999 * of else []
    return close, samples, files, odd


def table(result: CorpusResult) -> str:
    "One line a program."
    lines = [f"{'program':<30}" + "".join(f"{name:>10}" for name in VERDICTS)]
    for program in result.verdicts:
        counted = result.count(program)
        lines.append(f"{program:<30}" + "".join(f"{counted[name]:>10}" for name in VERDICTS))
    lines += [f"{program:<30}  left out: {why}" for program, why in result.left_out.items()]
    return "\n".join(lines)


def not_good(result: CorpusResult) -> list[str]:
    "Each medkit file that is not good, with its reason."
    return [
        f"{path.name}: {found}, {row['status']}, {row['reason']}"
        for path, row, found in zip(result.paths, result.rows, result.verdicts["medkit"])
        if found != "good"
    ]
