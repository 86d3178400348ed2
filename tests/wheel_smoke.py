"""Run beside an installed wheel, outside the checkout: every module imports, and one training step is made."""

import importlib
import pkgutil
import sys
from importlib.metadata import version
from pathlib import Path

import medkit

assert Path(medkit.__file__).is_relative_to(sys.prefix), f"{medkit.__file__} is not the installed wheel"
modules = [found.name for found in pkgutil.walk_packages(medkit.__path__, "medkit.")]
for module in modules:
    importlib.import_module(module)
print(f"{len(modules)} modules imported beside fastai {version('fastai')}, fastcore {version('fastcore')}")

from medkit import imaging, learning  # noqa: E402

cases = [imaging.simulate_abdomen(seed, shape=(8, 32, 32)) for seed in range(10)]
patients = [volume.patient_key for volume, _ in cases]
split = learning.patient_split(patients, valid=0.2, test=0.2, seed=0)
loaders = learning.slice_loaders(cases, split, window="pancreas", classes={"pancreas": ["pancreas", "tumour"]})
learner = learning.segmentation_learner(loaders)
with learner.no_bar(), learner.no_logging():
    learner.fit_one_cycle(1, 1e-3)
assert len(learner.recorder.losses) > 0, "no training step was made"
print(f"one epoch of {len(learner.recorder.losses)} training steps made")
