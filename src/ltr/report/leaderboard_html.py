"""Leaderboard as one HTML file: sortable, filtered by data set, backbone, schedule and cost; needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltr.evaluation.groups import GROUPS
from ltr.names import counted
from ltr.report.html_page import css_class, html_file, scroll_region, sort_headings, sort_value, text
from ltr.report.html_script import SORTING
from ltr.report.html_style import STYLE
from ltr.report.leaderboard import LeaderboardRow, hours_text, percent, signed
from ltr.report.style import NOTHING

_HOURS = (1, 3, 10, 30, 100)  # choices of the filter by cost
_FAR = 1.0  # marked deviation from the published number, in points

_STYLE = f"""{STYLE}
form {{ display: flex; flex-wrap: wrap; gap: .4em 1.2em; align-items: end; margin: 1em 0 }}
label {{ display: flex; flex-direction: column; font-size: .85em; color: var(--soft) }}
form button {{ font: inherit; padding: .25em .5em }}
caption {{ text-align: left; padding: .3em 0 }}
td.wrap {{ white-space: normal; min-width: 9em; overflow-wrap: anywhere }}
thead th {{ position: sticky; top: 0; background: var(--paper) }}
td.far {{ color: var(--warning); font-weight: 600 }} tbody th[scope=row] {{ font-weight: 600 }}
[hidden] {{ display: none }}
@media print {{ form, thead button::after {{ display: none }} }}
"""

# names are compared and never inserted as HTML
_FILTER = """
const body = document.querySelector("table").tBodies[0], form = document.querySelector("form");
const status = document.getElementById("count");
function filter() {
  const words = form.elements.words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const limit = parseFloat(form.elements.hours.value);
  let shown = 0;
  for (const row of body.rows) {
    const content = row.textContent.toLowerCase(), hours = parseFloat(row.dataset.hours);
    row.hidden = !(words.every(word => content.includes(word)) && (isNaN(limit) || hours <= limit)
      && ["dataset", "backbone", "schedule"].every(key => {
        const chosen = form.elements[key].value;
        return chosen === "" || row.dataset[key] === chosen;
      }));
    shown += !row.hidden;
  }
  status.textContent = shown + " of " + body.rows.length + " rows";
}
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", event => event.preventDefault());
form.hidden = false;
filter();
"""

_COLUMNS: tuple[tuple[str, bool], ...] = (
    ("run", False),
    ("data set", False),
    ("method", False),
    ("loss", False),
    ("backbone", False),
    ("schedule", False),
    ("metric", False),
    ("result", True),
    *((group, True) for group in GROUPS),
    ("n", True),
    ("published", True),
    ("deviation", True),
    ("hours", True),
    ("test images", True),
    ("selection", False),
    ("split", False),
    ("hardware", False),
    ("commit", False),
    ("files", False),
)


def leaderboard_html(rows: Sequence[LeaderboardRow], title: str = "Leaderboard") -> str:
    """Return the complete HTML file."""
    sources = list(dict.fromkeys(row.published.source for row in rows if row.published))
    lines = "\n".join(_row(row, sources) for row in rows)
    table = (
        '<table class="sortable"><caption class="note">A click on a heading sorts.</caption>\n'
        f"<thead><tr>{sort_headings(_COLUMNS)}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"
    )
    listed = "".join(
        f'<li id="source-{position}">{text(source)}</li>' for position, source in enumerate(sources, start=1)
    )
    runs = sum(row.seeds for row in rows)
    body = f"""<main>
<h1>{text(title)}</h1>
<p class="note">{counted(runs, "run")}, averaged over seeds (mean ± s.d., n runs), in percent. Deviation: result minus
published number, in points; {_FAR:.0f} point or more is marked. Compare only rows of one data set and split; published
numbers count all test images. Hours: all stages, as if none had been cached, on the row's hardware.</p>
<form hidden aria-label="filter">
{_select("dataset", "data set", [row.dataset for row in rows])}
{_select("backbone", "backbone", [row.backbone for row in rows])}
{_select("schedule", "schedule", [row.schedule for row in rows])}
<label>cost <select name="hours"><option value="">any</option>{_hour_options(rows)}</select></label>
<label>words <input type="search" name="words" placeholder="e.g. balanced"></label>
<button type="reset">show all</button>
</form>
<p class="note" id="count" role="status">{counted(len(rows), "row")}</p>
{scroll_region("results", table)}
<h2>Sources of published numbers</h2>
<ol>{listed}</ol>
</main>"""
    return html_file(title, _STYLE, body, SORTING + _FILTER)


def _row(row: LeaderboardRow, sources: Sequence[str]) -> str:
    position = sources.index(row.published.source) + 1 if row.published else 0
    published = (
        f'{row.published.number:.2f} <a href="#source-{position}" aria-label="source {position}">[{position}]</a>'
        if row.published
        else NOTHING
    )
    difference = row.difference
    cells = [
        f'<th scope="row" class="wrap">{text(row.label)}</th>',
        *(_cell(value) for value in (row.dataset, row.method, row.loss, row.backbone, row.schedule, row.metric.title)),
        _number(row.value_text, row.value),
        *(_number(percent(row.groups[group]), row.groups[group]) for group in GROUPS),
        _number(str(row.seeds), row.seeds),
        f'<td class="number"{sort_value(row.published.number if row.published else math.nan)}>{published}</td>',
        _number(signed(difference), difference, "far" if abs(difference) >= _FAR else ""),
        _number(hours_text(row.hours), row.hours),
        _number(f"{row.test_images:,}", row.test_images),
        *(_cell(value or NOTHING, "wrap") for value in (row.selection, row.split, row.hardware, row.commit)),
        _cell(" ".join(row.files), "wrap"),
    ]
    hours = "" if row.hours != row.hours else f"{row.hours:.10g}"
    data = {"dataset": row.dataset, "backbone": row.backbone, "schedule": row.schedule, "hours": hours}
    attributes = "".join(f' data-{key}="{text(value)}"' for key, value in data.items())
    return f"<tr{attributes}>{''.join(cells)}</tr>"


def _cell(value: str, names: str = "") -> str:
    return f"<td{css_class(names)}>{text(value)}</td>"


def _number(shown: str, value: float, names: str = "") -> str:
    return f"<td{css_class(f'number {names}'.strip())}{sort_value(value)}>{text(shown)}</td>"


def _select(name: str, label: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{text(value)}">{text(value)}</option>' for value in sorted(set(values)))
    return f'<label>{label} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _hour_options(rows: Sequence[LeaderboardRow]) -> str:
    highest = max((row.hours for row in rows if row.hours == row.hours), default=0.0)
    limits = [hours for hours in _HOURS if hours < highest]
    return "".join(f'<option value="{hours}">at most {counted(hours, "hour")}</option>' for hours in limits)
