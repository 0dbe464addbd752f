"""The options of MiSLAS."""

from __future__ import annotations

from ltr.methods.core.options import Options, StageOptions
from ltr.methods.decoupling.options import RepresentationOptions


class CalibratedOptions(Options):
    """Options of MiSLAS's second stage."""

    freeze_bn_stats: bool = False
    """Keep the backbone's BatchNorm statistics; `false` is the paper's shift learning, which lets them move to those of
    class-balanced batches. The authors keep them on CIFAR-10-LT."""


class MiSLASOptions(RepresentationOptions, CalibratedOptions):
    """Options of MiSLAS."""

    classifier: StageOptions
    """Settings of the second stage: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`, `selection`, and `augment`
    where it is not the representation's, as for images that are not mixed; see below."""
