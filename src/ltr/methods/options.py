"""The options of the methods that are one module."""

from __future__ import annotations

from typing import Annotated, Literal

from ltr.methods.core.options import Options

Targets = Literal["random", "next"]
Perturbation = Literal["adversarial", "noise"]


class NonRobustFeaturesOptions(
    Options,
    used_if={"steps": "perturbation=adversarial", "step_size": "perturbation=adversarial and steps>0"},
):
    """Options of the training on perturbed images."""

    targets: Targets = "random"
    """Labels of the perturbed images: `random` is any class, including the true one, so that the label is independent
    of the image (the paper's D_rand); `next` is y + 1 (its D_det)."""
    perturbation: Perturbation = "adversarial"
    """`noise` is the control: a random direction with the norm of the budget, with the same labels."""
    budget: Annotated[float, "(0, inf)"] = 0.5
    """Largest Euclidean length of a perturbation, of pixels in [0, 1]; paper."""
    step_size: Annotated[float, "(0, inf)"] = 0.1
    """Length of a gradient step; paper."""
    steps: Annotated[int, "[0, inf)"] = 100
    """Gradient steps; paper."""
