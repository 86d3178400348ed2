"""Processor time of vital signs for one hour of signal, on one core."""

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

from medkit import signals  # noqa: E402
from timing import median_cpu_s, row  # noqa: E402

for rate in (100, 250):
    recording, _ = signals.simulate_bcg(3600, sampling_rate_hz=rate, snr_db=10, seed=1)
    seconds = median_cpu_s(lambda: signals.measure_vitals(recording), repeats=5)
    row(f"measure_vitals, one hour at {rate} Hz", f"{seconds:.2f} s", "processor; budget 1 s")
