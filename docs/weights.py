"""Make the small pre-trained networks that the tour uses: `make weights`, some ten minutes on one core.

`python docs/weights.py outline denoiser tumour` makes those that are named. All patients are simulated and have seeds of their own, from
100 000 on: the tour's patients are not among them.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch  # noqa: E402
from medkit import imaging, learning  # noqa: E402
from medkit.files import sha256  # noqa: E402
from medkit.imaging import Window  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import imaging_tumour  # noqa: E402

torch.set_num_threads(1)
DATA = Path(__file__).resolve().parent.parent / "data"
FIRST_SEED = 100_000
FIELD = {"shape": (12, 64, 64), "spacing_mm": (8.0, 3.75, 3.75)}  # of the outlines, as in the tour
NOISE = {"sigma_hu": 60, "correlation_mm": 4.0}  # of the denoiser, as in the tour
THIN = {"shape": (8, 128, 128), "spacing_mm": (5.0, 2.7, 2.7), "noise_hu": 0}


def outline(folder: Path) -> None:
    "A U-Net that outlines the pancreas on coarse slices."
    cases = imaging.simulate_cohort(240, seed=FIRST_SEED, **FIELD)
    split = learning.patient_split([volume.patient_key for volume, _, _ in cases], valid=0.05, test=0.1, seed=0)
    loaders = learning.slice_loaders(cases, split, window="pancreas", classes={"pancreas": imaging.GLAND}, batch_size=16)
    learner = learning.segmentation_learner(loaders, width=8, fold=1)
    learning.train(learner, 8, 1e-2)
    scores = learning.evaluate(learner, loaders.test)
    print(scores)
    notes = {"what": "U-Net that outlines the pancreas with what lies in it, in simulated patients. Not for clinical use.",
             "trained on": f"{len(split.patients_of('train'))} simulated patients, seeds from {FIRST_SEED}", "scores": scores.as_dict()}
    learning.save_learner(learner, folder, notes)


def denoiser(folder: Path) -> None:
    "A ConvLSTM over five slices that takes noise away."
    clean = [volume for volume, _, _ in imaging.simulate_cohort(60, seed=FIRST_SEED, tumours=0.0, **THIN)]
    noisy = [imaging.add_noise(volume, seed=seed, **NOISE) for seed, volume in enumerate(clean)]
    split = learning.patient_split([volume.patient_key for volume in clean], valid=0.05, test=0.15, seed=0)
    loaders = learning.slice_loaders(list(zip(noisy, clean)), split, window=Window(40, 400), classes=None, stack=5)
    learner = learning.denoising_learner(loaders, "SliceConvLSTM")
    learning.train(learner, 8, 8e-3)
    scores = learning.evaluate(learner, loaders.test)
    print(scores)
    notes = {"what": "ConvLSTM over five slices that takes noise from simulated scans. Not for clinical use.", "noise": NOISE,
             "trained on": f"{len(split.patients_of('train'))} simulated patients, seeds from {FIRST_SEED}", "scores": scores.as_dict()}
    learning.save_learner(learner, folder, notes)


def tumour(folder: Path) -> None:
    "Two stages by the recipe of `make bench-imaging`: the gland on coarse slices, then a tumour in it, with a probability."
    drawn = imaging.simulate_cohort(400, seed=FIRST_SEED, shape=(28, 160, 160), spacing_mm=(5.0, 2.4, 2.4))
    cases = [imaging.Case(volume.patient_key, tags, lambda pair=(volume, mask): pair) for volume, mask, tags in drawn]
    learnt, kept = cases[:240], cases[240:]
    model = imaging_tumour.fit(learnt, kept, seed=0)[0].calibrated(kept, "160 simulated patients of hospital A")
    notes = {"what": "Outlines the pancreas and a tumour in simulated patients, with a probability. Not for clinical use.",
             "trained on": f"{len(learnt)} simulated patients of hospital A, seeds from {FIRST_SEED}"}
    learning.save_two_stage(model, folder, notes)


SETS = {"outline": (outline, "pancreas_outline"), "denoiser": (denoiser, "slice_denoiser"), "tumour": (tumour, "tumour_two_stage")}


def main() -> None:
    for name in sys.argv[1:] or SETS:
        make, place = SETS[name]
        folder = DATA / "weights" / place
        make(folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        lines = [f"{sha256(file)}\t{file.stat().st_size}\t{file.relative_to(folder).as_posix()}" for file in files]
        (DATA / "checksums" / f"medkit_{place}.tsv").write_text("\n".join(["# sha256\tsize in bytes\tpath here", *lines, ""]))
        print(f"written: data/weights/{place}, {sum(file.stat().st_size for file in files) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
