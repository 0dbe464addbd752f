"""Training batches with the views of a plan's first stage."""

from __future__ import annotations

from method_plans import Plan

from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch
from ltr.data.module import DataModule


def three_views(plan: Plan, epoch: int = 0) -> Batch:
    """The first training batch of the representation, with its views."""
    settings, shape = plan.stages["representation"].settings, plan.dataset_info.image_shape
    data = DataModule(
        plan.data.source,
        plan.data.split,
        sampler=instantiate(settings.sampler),
        augment=instantiate(settings.augment, shape),
        views=[instantiate(view, shape) for view in settings.views],
        batch_size=64,
        eval_batch_size=64,
        seed=0,
        role="representation",
        epochs=1,
    )
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))
