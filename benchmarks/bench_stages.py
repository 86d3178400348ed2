"""What medkit promises of ideation and testing, measured in one run, as one table; processor seconds of one thread.

`--only ideas path ...` runs a part, `--quick` takes fewer repeats. Everything is simulated, with frozen seeds.
"""

import os

from timing import run_parts

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

PARTS = {
    "store": "records that are tampered with, and writers that are killed",
    "ideas": "ten worked ideas, judged and decided",
    "path": "plainest model, every space, better models: the path beside the full grid",
    "sleep": "sleep and wake of unseen people, beside actigraphy and heuristics",
    "search": "a search that is killed and restored, with Optuna and with Ray Tune",
}


if __name__ == "__main__":
    run_parts(__doc__, "stages", PARTS, quick="fewer repeats")
