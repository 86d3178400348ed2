"""Make the small pre-trained network that the tour fine-tunes: `make weights`, some minutes on one core.

Its patients are simulated and have seeds of their own, from 100 000 on: the tour's patients are not among them.
"""

import os
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch  # noqa: E402
from medkit import imaging, learning  # noqa: E402
from medkit.files import sha256  # noqa: E402

DATA = Path(__file__).resolve().parent.parent / "data"
TARGET = DATA / "weights" / "pancreas_outline"
FIELD = {"shape": (12, 64, 64), "spacing_mm": (8.0, 3.75, 3.75)}  # as in the tour
FIRST_SEED, PATIENTS, EPOCHS = 100_000, 360, 12


def main() -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + PATIENTS)
    cases = [imaging.simulate_abdomen(seed, tumour=seed % 2 == 0, **FIELD) for seed in seeds]
    split = learning.patient_split([volume.patient_key for volume, _ in cases], valid=0.05, test=0.1, seed=0)
    loaders = learning.slice_loaders(
        cases, split, window="pancreas", classes={"pancreas": ["pancreas", "tumour"]}, batch_size=32
    )
    torch.manual_seed(0)
    learner = learning.segmentation_learner(loaders, width=8)
    learner.fit_one_cycle(EPOCHS, 1e-2)
    scores = learning.evaluate(learner, loaders.test)
    print(scores)
    notes = {
        "what": "U-Net that outlines the pancreas, a tumour included, in simulated patients. Not for clinical use.",
        "trained on": f"{len(split.patients_of('train'))} simulated patients, seeds from {FIRST_SEED}",
        "scores": scores.as_dict(),
    }
    learning.save_learner(learner, TARGET, notes)
    lines = [f"{sha256(file)}\t{file.stat().st_size}\t{file.name}" for file in sorted(TARGET.iterdir())]
    (DATA / "checksums" / "medkit_pancreas_outline.tsv").write_text("\n".join(["# sha256\tsize in bytes\tpath here", *lines, ""]))
    print(f"written: data/weights/{TARGET.name}, {sum(file.stat().st_size for file in TARGET.iterdir()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
