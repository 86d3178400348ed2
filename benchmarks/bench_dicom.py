"""What medkit promises of DICOM conversion, measured beside the other programs in one run, as one table.

`--quick` (the default) takes about five minutes, `--full` an hour: 2,000 slices a job, 100,000 small files, 200 kills.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processes import ENV

os.environ.update(ENV)

import dicom_corpus  # noqa: E402
import dicom_durable  # noqa: E402
import dicom_mutants  # noqa: E402
import dicom_private  # noqa: E402
import dicom_scale  # noqa: E402
import dicom_speed  # noqa: E402


@dataclass
class Line:
    "One row of the table."

    what: str
    bar: str
    measured: str
    peer: str = ""
    met: bool | None = None  # None: not measured
    why: str = ""


def show(lines: list[Line]) -> None:
    head = Line("what", "bar", "measured", "best peer")
    widths = [max(len(getattr(line, name)) for line in [head, *lines]) for name in ("what", "bar", "measured", "peer")]
    for line in [head, *lines]:
        cells = [text.ljust(width) for text, width in zip((line.what, line.bar, line.measured, line.peer), widths)]
        print(
            " | ".join([*cells, "met?" if line is head else {True: "yes", False: "NO", None: "not measured"}[line.met]])
        )
        if line.why:
            print(" " * 4 + line.why)


def corpus_lines(folder: Path) -> list[Line]:
    "How many files are shown as the standard says, and agreement with dcmtk."
    result = dicom_corpus.measure(folder)
    print(dicom_corpus.table(result), flush=True)
    for named in dicom_corpus.not_good(result):
        print("    not good:", named)
    for path, row in result.undecodable:
        print(f"    no codec decodes it: {path.name}: {row['status']}, {row['reason']}")
    ours, total = result.count("medkit"), len(result.paths)
    peers = {title: result.count(title)["good"] for title in result.verdicts if title != "medkit"}
    best = max(peers, key=peers.get)
    bad = {
        "inverted": ours["inverted"],
        "blank": ours["blank"],
        "silent": len(dicom_corpus.silent(result)),
        "unnamed": len(dicom_corpus.unnamed(result)),
    }
    least = 158 if total >= 162 else total - 4
    lines = [
        Line(
            "odd files shown as the standard says",
            f">= {least} of {total}, 0 inverted, 0 blank, 0 silent",
            f"{ours['good']}, " + ", ".join(f"{count} {name}" for name, count in bad.items()),
            f"{best}: {peers[best]}",
            ours["good"] >= least and not any(bad.values()),
            "" if total >= 162 else "MEDKIT_DATA is unset: packaged files only",
        )
    ]
    if "dcmtk +Wi 1, else +Wm" not in result.pictures:
        return [*lines, Line("agreement with dcmtk within 1 grey level", ">= 99.9 %", "", why="dcmtk is not installed")]
    close, samples, files, odd = dicom_corpus.agreement_with_dcmtk(result)
    return [
        *lines,
        Line(
            "agreement with dcmtk within 1 grey level",
            ">= 99.9 % of pixels",
            f"{close / samples:.3%} of {files} files",
            "",
            close >= 0.999 * samples,
            f"files below: {', '.join(odd)}" if odd else "",
        ),
    ]


def mutant_lines(seed: int) -> list[Line]:
    "Malformed files of one seed."
    lines = []
    for title, own in (("malformed files", False), ("malformed files, own generator", True)):
        if not own and not dicom_mutants.generator():
            lines.append(Line(title, "0 of each", "", why="its generator is not here: MEDKIT_FUZZ"))
            continue
        found = dicom_mutants.measure(seed, own)
        bad = {name: found[name] for name in dicom_mutants.BARS if found[name]}
        said = ", ".join(f"{count} {name}" for name, count in bad.items()) or "0 of each"
        why = "; ".join(
            f"{name} {what}: {more}" for name, what, *rest in found["faults"] for more in [rest[0] if rest else ""]
        )
        why += f" stopped by a worker's limits: {found['contained']}" if found["contained"] else ""
        lines.append(
            Line(
                f"{title}, seed {seed}, {found['files']} files",
                "0 crash, hang, memory, silent, missing, outside, other errors",
                f"{said}; peak {found['peak_mb']} MB, {found['wall_s']} s",
                "none meets it",
                not bad,
                why.strip(),
            )
        )
    return lines


def speed_lines(folder: Path, quick: bool) -> list[Line]:
    "Processor time of 512 x 512 slices, and what two workers bring."
    found, lines = dicom_speed.slices_512(folder, quick), []
    for kind, most, ratio in (("raw", 4.0, 0.55), ("jpeg2000", 28.5, 0.85)):
        ours, theirs = found[kind], found[f"{kind} SimpleITK"]
        fair = ours.fair and theirs.fair
        lines.append(
            Line(
                f"{kind} 512 x 512 slice, all in, CPU",
                f"<= {most} ms, <= {ratio} x SimpleITK",
                f"{ours.said()}, {ours.value / theirs.value:.2f} x",
                f"SimpleITK {theirs.said()}",
                ours.value <= most and ours.value <= ratio * theirs.value,
                "" if fair else "the machine was not idle: measure again",
            )
        )
    one, two, apart = found["raw wall"], found["raw wall 2"], found["two jobs"]
    most = f"two separate jobs side by side are {apart.value:.2f} x as fast as one after the other on this machine"
    lines.append(
        Line(
            "two workers against one, wall",
            ">= 1.8 x",
            f"{one.value / two.value:.2f} x ({one.said()}, {two.said()})",
            "",
            one.value >= 1.8 * two.value,
            most if one.fair and two.fair else f"needs two idle cores: measure again; {most}",
        )
    )
    return lines


def png_lines() -> list[Line]:
    cost = dicom_speed.png_cost()
    whole, parts = dicom_speed.png_sizes()
    ours, theirs = cost["medkit"], cost["Pillow"]
    by_part = ", ".join(f"{name} {ratio - 1:+.0%}" for name, ratio in sorted(parts.items()))
    return [
        Line(
            "16-bit PNG of a raw 512 x 512 slice",
            "<= 8 ms CPU, size <= Pillow 6 + 5 %",
            f"{ours.said()}, {cost['size'] - 1:+.1%}",
            f"Pillow {theirs.said()}",
            ours.value <= 8 and cost["size"] <= 1.05,
        ),
        Line("8-bit PNG size", "<= Pillow 6 + 5 %", f"{whole - 1:+.1%}", "", whole <= 1.05, by_part),
    ]


def scale_lines(folder: Path, quick: bool) -> list[Line]:
    found = dicom_scale.measure(folder, 5000 if quick else 100_000)
    early, late = found["memory_early_mb"], found["memory_late_mb"]
    return [
        Line(
            f"{found['files']:,} small files",
            "memory within 10 %, last tenth >= 0.9 x the rate of the first",
            f"{early:.0f} -> {late:.0f} MB, {found['late_over_first']:.2f} x ({found['late_over_second']:.2f} x the second),"
            f" {found['rate']:.0f}/s",
            "",
            abs(found["growth"]) <= 0.1
            and min(found["late_over_first"], found["late_over_second"]) >= 0.9
            and found["ok"] == found["files"],
            "" if found["others"] <= dicom_speed.QUIET else f"{found['others']:.1f} cores were busy elsewhere",
        )
    ]


def durable_lines(folder: Path, kills: int, quick: bool, seed: int) -> list[Line]:
    "Kills, a full disk, what cannot be written."
    found = dicom_durable.kill_many(folder / "kills", 2000, kills, seed)
    lines = [
        Line(
            f"kill -9 at {kills} random points, resume",
            "0 corrupt, 0 lost, 0 redone",
            dicom_durable.summary(found),
            "",
            found.clean,
            "; ".join(found.refused[:2]),
        )
    ]
    refused = dicom_durable.can_mount(folder / "probe")
    for what, work in (
        ("full disk", dicom_durable.full_disk),
        ("read-only target", dicom_durable.read_only_target),
        ("read-only manifest", dicom_durable.read_only_manifest),
    ):
        line = Line(what, "exit code 2, one clear line, nothing partial", "", why=refused or "")
        if not refused:
            faults = [fault for turn in range(1 if quick else 5) for fault in work(folder / f"{what}{turn}")]
            line.measured, line.met, line.why = (
                "clean stop" if not faults else f"{len(faults)} faults",
                not faults,
                "; ".join(faults),
            )
        lines.append(line)
    return lines


def private_lines() -> list[Line]:
    return [Line(what, bar, measured, peer, met) for what, bar, measured, peer, met in dicom_private.measure()]


def attempt(title: str, work: Callable[..., list[Line]], *arguments: object) -> list[Line]:
    "The lines of one part; a part that fails is one honest line."
    print(f"== {title}", flush=True)
    try:
        lines = work(*arguments)
    except Exception as error:
        lines = [Line(title, "", "", why=f"the measurement failed: {type(error).__name__}: {error}"[:400])]
    show(lines)
    print(flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes of the promise; about an hour")
    parser.add_argument("--quick", action="store_true", help="smaller jobs (the default)")
    parser.add_argument("--seed", type=int, default=7, help="of the malformed files and the kills")
    parser.add_argument("--kills", type=int, help="default: 5, or 200 with --full")
    parser.add_argument("--only", nargs="*", help="parts: corpus mutants speed png scale durable private")
    options = parser.parse_args()
    quick, load = not options.full, os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.2f}" + ("; not idle: timings below may be too high" if load > 0.5 else "")
    )
    with tempfile.TemporaryDirectory(prefix="medkit-bench-") as folder:
        place = Path(folder)
        parts = {
            "corpus": (corpus_lines, place / "corpus"),
            "mutants": (mutant_lines, options.seed),
            "png": (png_lines,),
            "speed": (speed_lines, place / "speed", quick),
            "scale": (scale_lines, place / "scale", quick),
            "durable": (durable_lines, place / "durable", options.kills or (5 if quick else 200), quick, options.seed),
            "private": (private_lines,),
        }
        lines = [
            line
            for title, part in parts.items()
            if not options.only or title in options.only
            for line in attempt(title, *part)
        ]
    print("== all")
    show(lines)
    return 0 if all(line.met is not False for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main())
