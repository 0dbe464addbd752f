"""Which published number belongs beside a line: that of the experiment config whose data, method and loss it has."""

from __future__ import annotations

from dataclasses import dataclass

from ltr.configuration.tables import PUBLISHED, table_rows
from ltr.report.comparison import Line
from ltr.report.conditions import Conditions


@dataclass(frozen=True)
class Published:
    """A number that a paper or a repository printed: a metric in percent, and where."""

    number: float
    source: str
    metric: str


class PublishedNumbers:
    """The published numbers of the shipped experiment configs.

    A config's number stands beside a line if the line's data set (with its imbalance, profile and subset), sampler,
    loss and method are the config's, and every other value that the config sets, but for the schedule. Validation
    images may be taken from the test set; a table says on how many images it was measured.
    """

    def __init__(self) -> None:
        rows = [row for row in table_rows() if row.published is not None]
        self._configs = [(row, Conditions.of(row)) for row in rows]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """The number beside a line of a protocol; of several configs that fit, the one of the line's own name.

        Of several scorers the first one's line has it.
        """
        config = line.config
        if line.scorer is not None and not line.rows[0]["headline"]:
            return None
        of_protocol = [pair for pair in self._configs if PUBLISHED[pair[0].metric] == protocol]
        fitting = [row for row, conditions in of_protocol if conditions.hold(config)]
        fitting.sort(key=lambda row: not row.config.endswith(f"_{config.get('name')}"))
        if not fitting:
            return None
        row = fitting[0]
        assert row.published is not None
        return Published(row.published, row.source, row.metric)
