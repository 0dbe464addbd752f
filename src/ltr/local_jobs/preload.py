"""Imports that the server of the jobs makes once, before it forks them; they take seconds."""

from ltr import quick_torchmetrics

quick_torchmetrics.install()

import pyarrow.parquet  # noqa: E402, F401
import torch._dynamo  # noqa: E402, F401 - imported by the first step of an optimiser
from hydra.core.plugins import Plugins  # noqa: E402

import ltr.cli  # noqa: E402
import ltr.commands.train  # noqa: E402
import ltr.configuration.check  # noqa: E402
import ltr.configuration.nested  # noqa: E402
import ltr.configuration.overrides  # noqa: E402
import ltr.configuration.run_lengths  # noqa: E402
import ltr.evaluation.closed_set  # noqa: E402
import ltr.runs.runner  # noqa: E402
import ltr.runs.training.train  # noqa: E402, F401

Plugins.instance()  # each job composes its configuration
