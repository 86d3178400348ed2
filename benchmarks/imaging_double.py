"""Double U-Net against U-Net: the same data, the same processor time, about the same parameters; both learning curves.

Medians of three seeds; the curve is that of the first, on the patients to choose by.
"""

import math
import statistics
import sys
import time

import torch

from medkit.imaging import Window, simulate_abdomen
from medkit.learning import predict, slice_loaders
from medkit.learning.losses import DiceCrossEntropy
from medkit.learning.metrics import dice
from medkit.learning.split import Split
from medkit.models import DoubleUNet, UNet, count_macs, count_parameters
from timing import print_rows

SEEDS = (0, 1, 2)
SECONDS = 90  # of processor time to each network, without the scoring
CURVE = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85)  # shares of the time at which the 6 patients to choose by are scored
PATIENTS = (*range(25), *range(100, 106), *range(200, 212))  # 25 to learn from, 6 to choose by, 12 to judge by
EARLY_WEIGHT = 0.4  # share of the first output in the loss
PANCREAS = {"pancreas": ["pancreas", "tumour"]}
NETWORKS = {  # name -> network, peak of the learning rate; the first half of the Double U-Net has no batch normalisation
    "U-Net, width 16": (lambda: UNet(1, 2, width=16, depth=3), 0.01),
    "U-Net, width 16, folded": (lambda: UNet(1, 2, width=16, depth=3, fold=2), 0.01),
    "Double U-Net, width 1/8": (lambda: DoubleUNet(1, 2, width=0.125), 0.01),
    "Double U-Net, width 1/8, slower": (lambda: DoubleUNet(1, 2, width=0.125), 0.003),
}


def loaders():
    cases = [simulate_abdomen(seed, tumour=seed % 2 == 0, shape=(8, 128, 128), preset="bench-1") for seed in PATIENTS]
    split = Split([volume.patient_key for volume, _ in cases], train=range(25), valid=range(25, 31), test=range(31, 43))
    return slice_loaders(cases, split, window=Window(40, 400), classes=PANCREAS, batch_size=16)


def score(network, dataset) -> float:
    "Mean Dice of the pancreas over patients."
    drawn, patients = predict(network, dataset).argmax(1).numpy(), list(dataset.patients)
    rows = [[place for place, other in enumerate(patients) if other == patient] for patient in dict.fromkeys(patients)]
    return sum(float(dice(drawn[row] == 1, dataset.targets[row].numpy() == 1)) for row in rows) / len(rows)


def cycle(share: float) -> float:
    "Learning rate over its peak at a share of the time: a linear rise, then a cosine to zero."
    return (0.04 + 0.96 * share / 0.25 if share < 0.25 else (1 + math.cos(math.pi * (share - 0.25) / 0.75)) / 2)


def batches(loader):
    while True:
        yield from loader


def train(network, dls, seconds: float, top: float) -> tuple:  # [(second, Dice to choose by)], steps, Dice to judge by
    loss, points, left = DiceCrossEntropy(), [], list(CURVE)
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), top, weight_decay=0.01)
    start = time.process_time()
    for steps, (pictures, targets) in enumerate(batches(dls.train)):
        share = (time.process_time() - start) / seconds
        if left and share >= left[0]:
            before = time.process_time()
            points.append((round(left.pop(0) * seconds), score(network, dls.valid.dataset)))
            network.train()
            start += time.process_time() - before  # scoring is not training
        if share >= 1:
            points.append((seconds, score(network, dls.valid.dataset)))
            return points, steps, score(network, dls.test.dataset)
        optimiser.param_groups[0]["lr"] = top * cycle(share)
        outputs = network(pictures.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last))
        *early, final = outputs if isinstance(outputs, tuple) else (outputs,)
        (loss(final, targets) + EARLY_WEIGHT * sum(loss(scores, targets) for scores in early)).backward()
        optimiser.step()
        optimiser.zero_grad()


def rows(quick: bool) -> list[tuple[str, str, str, bool | None]]:  # what, figure, bar, met
    dls, seconds, table, scores = loaders(), 20 if quick else SECONDS, [], {}
    for name, (make, top) in NETWORKS.items():
        runs = []
        for seed in SEEDS[:1] if quick else SEEDS:
            torch.manual_seed(seed)
            dls.train.rng.seed(seed)
            network = make()
            runs.append(train(network, dls, seconds, top))
        watched, judged = (statistics.median(column) for column in zip(*((points[-1][1], value) for points, _, value in runs)))
        scores[name] = watched, judged
        size = f"{count_parameters(network):,} parameters, {count_macs(network, (1, 1, 128, 128)) / 1e6:.0f} M MACs"
        curve = ", ".join(f"{second} s {value:.3f}" for second, value in runs[0][0])
        spread = " ".join(f"{value:.3f}" for _, _, value in runs)
        table.append((name, f"Dice {judged:.3f} ({spread}; {size}, {runs[0][1]} steps; {curve})", "curve printed", None))
        print(*table[-1][:2], file=sys.stderr, flush=True)
    plain, folded, *doubles = scores.values()
    double = max(doubles)[1]  # the rate is chosen by the patients to choose by
    for rival, (_, value) in (("U-Net", plain), ("folded U-Net", folded)):
        what = f"Double U-Net less {rival}, equal time and parameters"
        table.append((what, f"{double - value:+.3f}", "said as it is", None))
    return table


def main() -> None:
    torch.set_num_threads(1)
    print_rows(rows("--quick" in sys.argv))


if __name__ == "__main__":
    main()
