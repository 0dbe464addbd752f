"""RKD's angle loss against the direct form, forward and backward on one thread.

    python scripts/bench_rkd.py [--images 128] [--width 512] [--rounds 15] [--device cpu]

The direct form builds the tensor of normalised differences, N x N x D, and multiplies it with itself; ours takes three
squared distances to a cosine. Asked for are at most a quarter of its time, less memory at the peak than one such tensor
takes, and the same numbers in float64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from ltr.losses.relational import rkd_angle

Loss = Callable[[Tensor, Tensor], Tensor]


def direct(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the loss in the form of the published code."""

    def angles(points: Tensor) -> Tensor:
        arms = functional.normalize(points[None] - points[:, None], dim=2)
        return torch.bmm(arms, arms.transpose(1, 2))

    with torch.no_grad():
        wanted = angles(teacher)
    return functional.smooth_l1_loss(angles(student), wanted)


def step(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[float, Tensor]:
    """Return the loss and its gradient."""
    student.grad = None
    loss_value = loss(student, teacher)
    loss_value.backward()
    assert student.grad is not None
    return loss_value.item(), student.grad


def milliseconds(calls: dict[str, Loss], student: Tensor, teacher: Tensor, rounds: int) -> dict[str, float]:
    """Return the median time of a step; alternating forms share busy moments of the machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, loss in calls.items():
            start = time.perf_counter()
            step(loss, student, teacher)
            if student.is_cuda:
                torch.cuda.synchronize()
            if turn > 1:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(samples)) for name, samples in times.items()}


def peak_bytes(loss: Loss, student: Tensor, teacher: Tensor) -> int:
    """Return the peak additional memory of a step, from the allocator's record."""
    if student.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, student, teacher)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(loss, student, teacher)
    held = highest = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = (arguments.images, arguments.width)
    generator = torch.Generator().manual_seed(0)
    wide = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    student, teacher = (points.float().to(arguments.device) for points in wide)
    student.requires_grad_()
    forms: dict[str, Loss] = {"direct": direct, "ours": rkd_angle}

    print(f"N = {arguments.images}, D = {arguments.width}, {arguments.device}, one thread, float32")
    times = milliseconds(forms, student, teacher, arguments.rounds)
    one_tensor = 4 * arguments.images**2 * arguments.width
    for name, loss in forms.items():
        peak = peak_bytes(loss, student, teacher)
        print(
            f"  {name:<8} {times[name]:9.2f} ms   peak {peak / 1e6:8.1f} MB  {peak / one_tensor:6.2f} N x N x D tensors"
        )
    print(f"  {times['direct'] / times['ours']:.1f} times faster")
    exact = [step(loss, wide[0].clone().requires_grad_(), wide[1]) for loss in forms.values()]
    (loss_1, gradient_1), (loss_2, gradient_2) = exact
    gap = float((gradient_1 - gradient_2).abs().max() / gradient_1.abs().max())
    print(f"  in float64: losses differ by {abs(loss_1 - loss_2) / loss_1:.1e}, gradients by {gap:.1e} of the largest")


if __name__ == "__main__":
    main()
