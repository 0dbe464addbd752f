"""Lookup of the published number for a line of a report, by its data, method and loss."""

from __future__ import annotations

from dataclasses import dataclass

from ltr.configuration.tables import table_rows
from ltr.evaluation.metrics import METRICS
from ltr.report.comparison import Line
from ltr.report.conditions import Conditions


@dataclass(frozen=True)
class Published:
    """Published number.

    Attributes:
        number: its value in percent.
        source: where it was published, and how it was checked.
        metric: its metric.
        names_backbone: the experiment sets a backbone, so that the run has it.
    """

    number: float
    source: str
    metric: str
    names_backbone: bool = False


class PublishedNumbers:
    """Published numbers of the shipped experiments, from ``conf/published.csv``.

    A line matches an experiment if it has the same data set (with imbalance, profile and subset), sampler, loss and
    method, and every other value that the experiment sets, except for the schedule. Validation images may come from
    the test set; tables give the number of test images. Classifiers on stored features match no experiment.
    """

    def __init__(self) -> None:
        rows = [row for row in table_rows() if row.published is not None]
        self._rows = [(row, Conditions.of(row)) for row in rows]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """Return the published number of a line; an experiment named like the line wins over other matches.

        With several scorers, only the line of the headline scorer has a number.
        """
        config = line.config
        if line.scorer is not None and not line.rows[0]["headline"]:
            return None
        if config.get("features.name", "images") != "images":  # published numbers are of trained networks
            return None
        rows_of_protocol = [pair for pair in self._rows if METRICS.find(pair[0].metric).protocol == protocol]
        matching_rows = [pair for pair in rows_of_protocol if pair[1].match(config)]
        matching_rows.sort(key=lambda pair: not pair[0].config.endswith(f"_{config.get('name')}"))
        if not matching_rows:
            return None
        row, conditions = matching_rows[0]
        assert row.published is not None
        names_backbone = any(key.startswith("backbone.") for key, _ in conditions.values)
        return Published(row.published, row.citation, row.metric, names_backbone)
