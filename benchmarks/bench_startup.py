"""How long a user waits before anything happens: import medkit, its worlds, and `medkit --help`."""

from timing import median_process_s, row

bare, _ = median_process_s("-c", "pass")
for what, code, budget in (
    ("import medkit", "import medkit", "budget < 0.3 s"),
    ("from medkit import imaging; read_image", "from medkit import imaging; imaging.read_image", ""),
    ("from medkit import signals; measure_vitals", "from medkit import signals; signals.measure_vitals", ""),
    ("from medkit import stages; Store", "from medkit import stages; stages.Store", ""),
):
    cpu, wall = median_process_s("-c", code)
    row(what, f"{wall:.2f} s", f"{cpu:.2f} s processor, of which Python itself {bare:.2f}  {budget}")
cpu, wall = median_process_s("-m", "medkit", "--help")
row("medkit --help", f"{wall:.2f} s", f"{cpu:.2f} s processor  budget < 0.6 s")
