"""Damaged models must be refused, and a whole one must be there within a second: `python benchmarks/imaging_saved.py`."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from medkit import imaging, learning, models  # noqa: E402
from medkit.errors import ModelError  # noqa: E402
from timing import print_rows  # noqa: E402

FLIPS, CUTS, SEED = 20, 10, 5


def trained(model: str, **options) -> learning.SliceLoaders:
    "A learner with three windows as channels; what is saved does not depend on how well it learnt."
    cases = [imaging.simulate_abdomen(seed, shape=(4, 32, 32), tumour_diameter_mm=40) for seed in range(6)]
    split = learning.patient_split([volume.patient_key for volume, _ in cases], valid=0.2, test=0.2, seed=0)
    dls = learning.slice_loaders(cases, split, window=["pancreas", "liver", "bone"], classes={"pancreas": ["pancreas", "tumour"]})
    return learning.segmentation_learner(dls, model, **options)


def refusal(folder: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    "How `load_learner` answers after a change of one file, which is put back."
    file, content = folder / name, (folder / name).read_bytes()
    file.write_bytes(change(content))
    try:
        learning.load_learner(folder)
        return "loaded"
    except ModelError as error:
        return error.reason
    finally:
        file.write_bytes(content)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damages(folder: Path) -> tuple[list[str], list[str]]:
    "The answers to flipped bits and to cut files, half in the weights and half in the text."
    rng, flips, cuts = np.random.default_rng(SEED), [], []
    for number in range(FLIPS):
        name = ("weights.safetensors", "model.json")[number % 2]
        bits = 8 * (folder / name).stat().st_size
        flips.append(refusal(folder, name, lambda content: flipped(content, int(rng.integers(bits)))))
    for number in range(CUTS):
        name = ("weights.safetensors", "model.json")[number % 2]
        size = (folder / name).stat().st_size
        cuts.append(refusal(folder, name, lambda content: content[:int(rng.integers(size))]))
    return flips, cuts


def load_s(folder: Path, repeats: int = 5) -> float:
    "The median wall time of `load_learner`, in seconds."
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        learning.load_learner(folder)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def rows(quick: bool) -> list[tuple]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        small = learning.save_learner(trained("UNet", width=8), Path(temporary) / "small")
        flips, cuts = damages(small)
        whole = learning.load_learner(small).model.state_dict()
        large = learning.save_learner(trained("DoubleUNet"), Path(temporary) / "large")
        megabytes = sum(file.stat().st_size for file in large.iterdir()) / 1e6
        small_s, large_s = load_s(small), load_s(large, 3 if quick else 5)
    count = models.count_parameters(models.DoubleUNet())
    return [
        (f"{FLIPS} flipped bits refused", f"{flips.count('bad_model_file')} of {FLIPS}", f"{FLIPS} of {FLIPS}",
         flips.count("bad_model_file") == FLIPS),
        (f"{CUTS} cut files refused", f"{cuts.count('bad_model_file')} of {CUTS}", f"{CUTS} of {CUTS}",
         cuts.count("bad_model_file") == CUTS),
        ("the whole one loads afterwards", f"{len(whole)} tensors", "loads", bool(whole)),
        ("load a small U-Net (wall time)", f"{small_s:.3f} s", "<= 1 s", small_s <= 1),
        (f"load a Double U-Net of {count:,} parameters (wall time)", f"{large_s:.2f} s, {megabytes:.0f} MB", "<= 1 s", large_s <= 1),
    ]


def main() -> None:
    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
