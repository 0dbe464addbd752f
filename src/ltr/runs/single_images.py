"""Treatment of single-image batches if batch normalisation needs two images: join them to another batch, or refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltr.data.module import DataModule
from ltr.errors import ConfigError
from ltr.methods.core.stage import Stage
from ltr.runs.processes import distributed


def join_single_images(
    stage: Stage, data: DataModule, norms: Sequence[str], strategy: Mapping[str, Any], print_line: Callable[[str], None]
) -> None:
    """Join an epoch's last batch to the one before it if it is a single image and the network needs more than one.

    Args:
        norms: names of the batch normalisation layers whose input is 1x1.

    Raises:
        ConfigError: every batch of a process is a single image.
    """
    if not norms or (distributed.is_distributed() and strategy["sync_batchnorm"]):
        return
    images, batches = data.images_per_epoch, data.steps_per_epoch
    limit = stage.settings.limit_train_batches
    if data.images_of_step(min(limit or batches, batches) - 1) > 1:
        return
    per_process = " in each process" if distributed.is_distributed() else ""
    layers = f"{norms[0]}{f' and {len(norms) - 1} more' if len(norms) > 1 else ''}"
    if batches == 1 or data.images_of_step(0) == 1:
        raise ConfigError(
            f"stage '{stage.name}': batch_size={stage.settings.batch_size} and {images} training images{per_process} "
            f"make batches of a single image, and batch normalisation over a 1x1 map ({layers}) needs at least two. "
            "Raise batch_size, or use a backbone without batch normalisation"
        )
    data.join_single = True
    print_line(
        f"{stage.name}: the last of an epoch's {images} images{per_process} would be a batch of one image, which batch "
        f"normalisation over a 1x1 map ({layers}) does not allow: it is added to the previous batch"
    )
