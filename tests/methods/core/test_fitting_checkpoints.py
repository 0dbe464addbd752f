"""Comparison of a checkpoint's network with a run: options that came later have their defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from method_plans import planned

from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import check_fits


def test_options_that_an_earlier_network_lacks_have_their_defaults():
    plan = planned("backbone=resnet20")
    settings = plan.stages["representation"].settings
    network = plan.stages["representation"].network(plan.dataset_info, 0)
    earlier = {key: value for key, value in settings.backbone.items() if key != "shortcut_reduction"}
    network.settings = settings.replaced(backbone=earlier)
    check_fits(network, settings, plan.dataset_info, Path("earlier.ckpt"))
    averaging = settings.replaced(backbone={**settings.backbone, "shortcut_reduction": "average"})
    with pytest.raises(CheckpointError, match=r"shortcut_reduction=stride.*this run's is.*shortcut_reduction=average"):
        check_fits(network, averaging, plan.dataset_info, Path("earlier.ckpt"))
