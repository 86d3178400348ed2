"""DoubleUNet at full width on 256 x 256 pixels on a graphics card: our training step beside plain PyTorch of the same network.

Plain: 32-bit numbers, memory as PyTorch lays it out, no compilation, PyTorch's own defaults (so cuDNN may use TF32).
Ours: bfloat16 where that is safe, channels last, torch.compile, a fused optimiser. Then: seconds until the learner, as users get
it, outlines the phantom pancreas with the Dice of `imaging_segment`. Without a card it says so in one line.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from imaging_segment import BAR_DICE, Clock, loaders
from torch import nn

from medkit.learning.learner import segmentation_learner, train
from medkit.learning.losses import DeepSupervision, DiceCrossEntropy
from medkit.models import DoubleUNet

SIDE, BATCH, WIDTH = 256, 16, 1.0
WARM_UP, STEPS, REPEATS = 5, 20, 3
BAR_FASTER = 3.0
EPOCHS = 30


def batch_of(size: int, side: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    "Pictures through three windows and outlines of a twentieth of them, from a fixed seed."
    chance = torch.Generator().manual_seed(0)
    pictures, wanted = torch.rand(size, 3, side, side, generator=chance), torch.rand(size, side, side, generator=chance) > 0.95
    return pictures.to(device), wanted.long().to(device)


def make_step(network: nn.Module, pictures, targets, *, fast: bool, compiled: bool) -> Callable[[], torch.Tensor]:
    "One training step of `network` on the batch; `fast`: bfloat16, channels last and a fused optimiser."
    kind, loss = pictures.device.type, DeepSupervision(DiceCrossEntropy())
    if fast:
        network, pictures = network.to(memory_format=torch.channels_last), pictures.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True if fast and kind == "cuda" else None)
    answer = torch.compile(network) if compiled else network

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=torch.bfloat16) if fast else nullcontext():
            outputs = answer(pictures)
        cost = loss(tuple(output.float() for output in outputs), targets)
        cost.backward()
        optimiser.step()
        return cost.detach()

    return step


def images_per_s(step: Callable, images: int, warm_up: int = WARM_UP, steps: int = STEPS, repeats: int = REPEATS) -> float:
    "Median pictures a second; the card is waited for before each look at the clock."
    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(warm_up):
        step()
    speeds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        speeds.append(images * steps / (time.perf_counter() - start))
    return statistics.median(speeds)


def speeds(device: str, *, side=SIDE, batch=BATCH, width=WIDTH, compiled=True, **counts) -> tuple[float, float, float]:
    "Pictures a second of the plain step and of ours, and how far the first losses of the two lie apart."
    pictures, targets = batch_of(batch, side, device)
    found, losses = [], []
    for fast in (False, True):
        torch.manual_seed(0)
        network = DoubleUNet(in_channels=3, classes=2, width=width).to(device).train()
        step = make_step(network, pictures, targets, fast=fast, compiled=fast and compiled)
        losses.append(float(step()))
        found.append(images_per_s(step, batch, **counts))
        del network, step
    return *found, abs(losses[0] - losses[1])


def seconds_to_dice(device: str, dice: float = BAR_DICE, epochs: int = EPOCHS, width: float = WIDTH, **patients) -> float | None:
    "Seconds of the learner with a DoubleUNet until the validation patients of the phantom reach `dice`; None if never."
    dls = loaders(device=device, window=("pancreas", "liver", "soft_tissue"), **patients)
    learn, clock = segmentation_learner(dls, "DoubleUNet", width=width, lr=1e-3), Clock(time.perf_counter)
    learn.add_cb(clock)
    with learn.no_bar(), learn.no_logging():
        train(learn, epochs)
    return clock.seconds_to(dice)


def main() -> None:
    if not torch.cuda.is_available():
        print("no graphics card here: DoubleUNet at full width is timed where there is one (make bench-gpu)")
        return
    plain, ours, apart = speeds("cuda")
    ratio = ours / plain
    print(f"{torch.cuda.get_device_name()}; DoubleUNet of full width, {SIDE} x {SIDE}, batches of {BATCH}")
    print(f"plain 32-bit step: {plain:.0f} images/s; ours: {ours:.0f} images/s; {ratio:.2f} times, bar {BAR_FASTER:g}: "
          f"{'met' if ratio >= BAR_FASTER else 'NOT met'}; first losses {apart:.3f} apart")
    reached = seconds_to_dice("cuda")
    print(f"phantom pancreas Dice {BAR_DICE} on the validation patients: " + (f"{reached:.0f} s" if reached else f"not in {EPOCHS} epochs"))


if __name__ == "__main__":
    sys.exit(main())
