"""Look up the published number of a line of a report: that of the experiment whose data, method and loss it has."""

from __future__ import annotations

from dataclasses import dataclass

from ltr.configuration.tables import table_rows
from ltr.evaluation.metrics import METRICS
from ltr.report.comparison import Line
from ltr.report.conditions import Conditions


@dataclass(frozen=True)
class Published:
    """A published number: its value in percent, where it was published, and its metric."""

    number: float
    source: str
    metric: str


class PublishedNumbers:
    """The published numbers of the shipped experiments, as ``conf/published.csv`` lists them.

    A line has the number of an experiment if its data set (with imbalance, profile and subset), sampler, loss and
    method are the experiment's, and every other value that the experiment sets, except for the schedule. Validation
    images may be taken from the test set; a table says on how many images it was measured.
    """

    def __init__(self) -> None:
        rows = [row for row in table_rows() if row.published is not None]
        self._rows = [(row, Conditions.of(row)) for row in rows]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """Return the published number of a line; of several experiments that fit, that of the line's own name.

        With several scorers only the first one's line has a number.
        """
        config = line.config
        if line.scorer is not None and not line.rows[0]["headline"]:
            return None
        of_protocol = [pair for pair in self._rows if METRICS.find(pair[0].metric).protocol == protocol]
        fitting = [row for row, conditions in of_protocol if conditions.hold(config)]
        fitting.sort(key=lambda row: not row.config.endswith(f"_{config.get('name')}"))
        if not fitting:
            return None
        row = fitting[0]
        assert row.published is not None
        return Published(row.published, row.citation, row.metric)
