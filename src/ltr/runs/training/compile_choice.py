"""Choice of ``compile=auto``: whether the training of a backbone is long enough to repay its compilation."""

from __future__ import annotations

from dataclasses import dataclass

from ltr.names import counted

LEAST_SPEEDUP = 1.05  # less is within the spread of the rounds


@dataclass(frozen=True)
class Measurement:
    """Processor time of a backbone's steps on one thread of a CPU (``scripts/bench_compile.py``).

    Attributes:
        milliseconds: time of a training step for each image, uncompiled.
        speedup: ratio of the uncompiled to the compiled time.
        compiling: seconds of compiling.
    """

    milliseconds: float
    speedup: float
    compiling: float

    @property
    def repaid_after(self) -> float:
        """Number of images after which compiling is repaid; infinite if it saves no time."""
        if self.speedup < LEAST_SPEEDUP:
            return float("inf")
        return 1000 * self.compiling / (self.milliseconds * (1 - 1 / self.speedup))


MEASURED = {  # by the backbone's name and the precision
    ("backbone/digits_net", "bf16"): Measurement(4.8 / 64, 1.00, 20),
    ("backbone/cifar_resnet", "bf16"): Measurement(259 / 128, 0.98, 53),
    ("backbone/cifar_resnet", "fp32"): Measurement(475 / 128, 1.04, 55),
    ("backbone/classifier32", "bf16"): Measurement(391 / 128, 1.01, 34),
}


def choose_compilation(backbone: str, precision: str, device: str, images: int) -> tuple[bool, str]:
    """Return whether ``compile=auto`` compiles a backbone, and the reason as the end of a sentence.

    Args:
        backbone: its stable name.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        device: ``cpu`` or ``cuda``.
        images: remaining images of the training, summed over its epochs.
    """
    if device != "cpu":
        return False, "the gain has not been measured on GPUs (compile=true compiles, compile=graph records the step)"
    measured = MEASURED.get((backbone, precision))
    if measured is None:
        return False, f"the gain of this backbone in {precision} has not been measured (compile=true compiles it)"
    ratio = f"{measured.speedup:.2f} times as fast when compiled"
    if measured.speedup < LEAST_SPEEDUP:
        return False, f"a step in {precision} is only {ratio}"
    repaid = round(measured.repaid_after, -3)
    length = f"compiling is repaid after {counted(int(repaid), 'image')}, and this training takes {images:,}"
    return images > measured.repaid_after, f"a step in {precision} is {ratio}; {length}"
