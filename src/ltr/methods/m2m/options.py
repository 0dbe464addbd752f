"""The options of M2m."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ltr.methods.core.options import Options


class M2mClassifierOptions(
    Options,
    used_if={
        **dict.fromkeys(("gamma", "accept_on"), "rejection=both or rejection=confidence"),
        **dict.fromkeys(("lam", "step_size"), "steps>0"),
    },
):
    """Options of the network f, which is trained on batches with generated images."""

    beta: Annotated[float, "[0, 1)"] = 0.999
    """Base of the acceptance probability 1 - beta^gap, with the gap between the class sizes; the released script's
    value, searched in {0.9, 0.99, 0.999}."""
    lam: Annotated[float, "[0, inf)"] = 0.5
    """lambda, the weight of the logit that f gives to the seed's class; the released script's value, searched in
    {0.01, 0.1, 0.5}. Under a cosine head it weighs the cosine, as in the code, whose heads do not scale."""
    gamma: Annotated[float, "[0, inf)"] = 0.9
    """Smallest probability (or largest loss) of the target class under g; the released script's value (0.99 is the
    code's own default)."""
    steps: Annotated[int, "[0, inf)"] = 10
    """T, the gradient steps; paper and code."""
    step_size: Annotated[float, "[0, inf)"] = 0.1
    """eta, the length of a step over all pixels in [0, 1]; paper and code."""
    seed_source: Literal["batch", "dataset"] = "batch"
    """`batch` takes seeds from the batch (code); `dataset` from all training images, sampled by Q and augmented like
    the batch (the paper's text; images in memory only)."""
    accept_on: Literal["prob", "loss"] = "prob"
    """`prob` accepts where g's probability is at least gamma (code), `loss` where its cross-entropy is at most gamma
    (paper)."""
    rejection: Literal["both", "confidence", "chance", "none"] = "both"
    """Tests that a generated image has to pass; paper and code apply both."""
    noise: Literal["image", "official", "none"] = "image"
    """Noise on a seed: `image` is at most 0.5 long for each image (ours, see below); `official` limits one colour
    channel over the whole batch, so that an image's noise is tiny."""
    target: Literal["slot", "random"] = "slot"
    """`random` moves images towards a random class and labels them as before (ablation)."""
    insert: Literal["generated", "seed", "noise"] = "generated"
    """Controls: `seed` inserts the untouched seed, `noise` the seed moved by the same distance in a random
    direction."""


class M2mOptions(M2mClassifierOptions):
    """Options of the method."""

    start_from: str | None = None
    """A finished run's folder or a checkpoint to take g from, instead of training it."""
    representation: Mapping[str, Any] | None = None
    """Refused with a reason: M2m trains its generator as plain ERM."""
