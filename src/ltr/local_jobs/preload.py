"""What the server of the jobs imports once, before it forks them: importing this module takes seconds."""

from ltr import quick_torchmetrics

quick_torchmetrics.install()

import torch._dynamo  # noqa: E402, F401 - imported by the first step of an optimiser
from hydra.core.plugins import Plugins  # noqa: E402

import ltr.commands.train  # noqa: E402
import ltr.runs.runner  # noqa: E402
import ltr.runs.training.train  # noqa: E402, F401

Plugins.instance()  # each job composes its configuration
