"""Stored features of a config's split, for commands that compare images without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ltr.data.loaders.feature_table import FeatureTable
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.escaping import printer
from ltr.models.backbone_output import BackboneOutput
from ltr.runs.plan import plan_of
from ltr.runs.processes.interrupt import stop_request
from ltr.runs.stages import Stages
from ltr.runs.store import StageStore
from ltr.runs.training.doubts import warn_of_frozen_random_weights


def split_features(config: Mapping[str, Any], source: Source | None, console: Console) -> tuple[Split, FeatureTable]:
    """Compute the missing features of a config's split; return the split and its table.

    A training with this config uses the same table, see `ltr.runs.features`.

    Args:
        config: checked configuration with ``features=stored``.
        source: source of the config; None: read it.

    Raises:
        ConfigError: the config trains on images.
        LtrError: a mistake for which a run of the config would stop.
    """
    plan = plan_of(config, source)
    stages = [stage for stage in plan.stages if stage.module is not None and stage.settings.features is not None]
    if not stages:
        raise ConfigError("features=images stores no features. Leave it out, or use features=stored")
    if not BackboneOutput.of(stages[0].settings.features).is_vector:
        raise ConfigError(
            f"features.output={config['features']['output']}: images are compared by one vector each. Use "
            "features.output=vector, without features.pool"
        )
    warn_of_frozen_random_weights(stages[0])
    print_line = printer(console)
    with stop_request() as request:
        computed = Stages(
            config=config,
            plan=plan,
            store=StageStore(Path(config["paths"]["stages"]), print_line),
            console=console,
            request=request,
            loggers=lambda stage: [],
            started=lambda: None,
        )
        computed.obtain_features()
    assert computed.features is not None
    return plan.split, computed.features.plain
