"""What the lessons and the doctor reach: exercises and refused answers, mutants of answers, faults named, and the time to build.

`--only exercises mutants doctor time` runs a part, `--quick` takes fewer mutants and one lesson.
"""

import os

from timing import run_parts

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", MEDKIT_OFFLINE="1")

PARTS = {
    "exercises": "every exercise refuses its wrong answers, and gives nothing away",
    "mutants": "automatic mutants of each answer, refused by its check",
    "doctor": "faults provoked for real and named, error messages recognised",
    "time": "build and verify a lesson, beside the time of the lesson itself",
}


if __name__ == "__main__":
    run_parts(__doc__, "teach", PARTS, quick="fewer mutants, one lesson")
