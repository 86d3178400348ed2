"""What medkit promises of learning from images, measured in one run, as one table; processor seconds of one thread.

The phantom's preset and all seeds are frozen; the real scans need MEDKIT_DATA. `--only segment tumour ...` runs a part,
`--quick` takes one run where the table takes the median of three.
"""

import argparse
import importlib
import os
import time

from timing import print_rows

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

PARTS = {
    "data": "slices from DICOM series to the learner, with and without the cache",
    "metrics": "scores beside MONAI, surface-distance, scikit-learn and scikit-image",
    "saved": "damaged models, and the time to load one",
    "segment": "the pancreas on the phantom, by the default learner",
    "tumour": "small tumours in two stages, and a patient's probability, in two hospitals",
    "double": "Double U-Net beside U-Net at equal time and at equal size",
    "denoise": "noise taken away, beside classical filters",
    "real": "liver and spleen of one real person learnt from another",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--quick", action="store_true", help="one run instead of the median of three")
    asked = parser.parse_args()
    met = []
    for part in asked.only:
        start = time.process_time()
        print(f"\n== {part}: {PARTS[part]}", flush=True)
        met += print_rows(importlib.import_module(f"imaging_{part}").rows(asked.quick))
        print(f"-- {time.process_time() - start:.0f} s of processor time")
    print(f"\n{sum(met)} of {len(met)} bars met")


if __name__ == "__main__":
    main()
