"""What medkit promises of learning from images, measured in one run, as one table; processor seconds of one thread.

The phantom's preset and all seeds are frozen; the real scans need MEDKIT_DATA. `--only segment tumour ...` runs a part,
`--quick` takes one run where the table takes the median of three.
"""

import os

from timing import run_parts

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


if __name__ == "__main__":
    run_parts(__doc__, "imaging", PARTS, quick="one run instead of the median of three")
