"""Layout, style and script of an HTML report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ltr import escaping
from ltr.report.style import GROUP_COLOURS, INK, PALE, WARNING

# the browser fetches nothing, whatever a name in the report looks like
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = f"""
:root {{ --ink: {INK}; --pale: {PALE}; --warning: {WARNING}; --many: {GROUP_COLOURS["many"]};
  --medium: {GROUP_COLOURS["medium"]}; --few: {GROUP_COLOURS["few"]} }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 1.5em auto;
  max-width: 1300px; padding: 0 1em }}
h1 {{ font-size: 1.4em }} h2 {{ font-size: 1.15em; margin: 2em 0 .4em; border-top: 1px solid #ddd; padding-top: 1em }}
h3 {{ font-size: 1em; margin: 1.2em 0 .3em }}
.warning {{ color: var(--warning) }} .note {{ color: #555; font-size: .9em; margin: .2em 0 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5em 0 }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap }}
td:first-child {{ white-space: normal; min-width: 9em; overflow-wrap: anywhere }}
th.number, td.number {{ text-align: right }}
th button {{ font: inherit; font-weight: 600; border: 0; background: none; padding: 0; cursor: pointer;
  color: inherit }}
th[aria-sort=ascending] button::after {{ content: " ▲" }} th[aria-sort=descending] button::after {{ content: " ▼" }}
td.best {{ font-weight: 700 }} td.tie {{ text-decoration: underline dotted }} td.warning {{ color: var(--warning) }}
tbody tr:hover {{ background: #f5f7fa }}
input[type=search], select {{ font: inherit; padding: .25em .5em; border: 1px solid #bbb; border-radius: 3px;
  max-width: 26em }}
.scroll {{ overflow-x: auto }} svg {{ max-width: 100%; height: auto; font: 13px system-ui, sans-serif }}
.many {{ color: var(--many); fill: var(--many); stroke: var(--many) }}
.medium {{ color: var(--medium); fill: var(--medium); stroke: var(--medium) }}
.few {{ color: var(--few); fill: var(--few); stroke: var(--few) }}
.other {{ color: var(--pale); fill: var(--pale); stroke: var(--pale) }}
.axis {{ stroke: #bbb }} .grid {{ stroke: #e4e4e4 }} .dim {{ opacity: .12 }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1em }} .pictures img {{ max-width: 560px; width: 100% }}
.beside {{ display: flex; flex-wrap: wrap; gap: .5em 1em }} .beside > h3, .beside > p {{ width: 100%; margin: 0 }}
figure {{ margin: 0 }} figcaption {{ color: #555; font-size: .9em; overflow-wrap: anywhere }}
#tip {{ position: fixed; display: none; background: var(--ink); color: #fff; padding: .3em .6em; border-radius: 3px;
  font-size: 13px; pointer-events: none; max-width: 30em; white-space: pre-line; z-index: 2 }}
@media print {{ input, select, button {{ border: 0 }} }}
"""

# names are inserted as textContent only, never as HTML
SCRIPT = """
"use strict";
const number = cell => cell.dataset.value === undefined ? NaN : parseFloat(cell.dataset.value);
function sortBy(table, column, descending) {
  const body = table.tBodies[0], rows = [...body.rows];
  const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    const one = a.cells[column], two = b.cells[column];
    if (!numeric) return sign * one.textContent.localeCompare(two.textContent);
    const x = number(one), y = number(two);
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return sign * (x - y);
  });
  body.append(...rows);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const now = head.getAttribute("aria-sort");
      sortBy(table, column, now ? now === "ascending" : numeric);
    });
  });
}
function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("table.sortable tbody tr")) {
    const text = (row.dataset.about + " " + row.textContent).toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
}
document.getElementById("filter").addEventListener("input", filter);
const tip = document.getElementById("tip");
function hide() { tip.style.display = "none"; }
function show(text, event) {
  tip.textContent = text;
  tip.style.display = "block";
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
}
const SVG = "http://www.w3.org/2000/svg";
function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.append(node);
  return node;
}
const percent = value => value === null ? "\\u2013" : (100 * value).toFixed(1) + " %";
function perClass(block) {
  const data = JSON.parse(block.querySelector("script").textContent);
  const svg = block.querySelector("svg"), pick = block.querySelectorAll("select"), find = block.querySelector("input");
  const largest = Math.max(1, ...data.counts), smallest = Math.max(1, Math.min(...data.counts));
  const span = Math.log(largest) - Math.log(smallest) || 1;
  const x = count => 55 + 620 * (Math.log(Math.max(1, count)) - Math.log(smallest)) / span;
  const y = value => 300 - 270 * value;
  function draw() {
    svg.replaceChildren();
    for (let step = 0; step <= 4; step++) {
      make("line", {x1: 45, x2: 690, y1: y(step / 4), y2: y(step / 4), class: "grid"}, svg);
      make("text", {x: 38, y: y(step / 4) + 4, "text-anchor": "end"}, svg).textContent = 25 * step;
    }
    for (const count of new Set([smallest, Math.round(Math.sqrt(smallest * largest)), largest]))
      make("text", {x: x(count), y: 322, "text-anchor": "middle"}, svg).textContent = count;
    make("text", {x: 370, y: 342, "text-anchor": "middle"}, svg).textContent = "training images of a class";
    make("text", {x: 45, y: 16}, svg).textContent = data.measure + " (%)";
    const wanted = find.value.toLowerCase();
    pick.forEach((select, which) => {
      const line = data.lines[select.value];
      if (!line) return;
      data.names.forEach((name, c) => {
        const value = line.accuracy[c];
        if (value === null) return;
        const hit = !wanted || name.toLowerCase().includes(wanted);
        const mark = make("circle", {cx: x(data.counts[c]), cy: y(value), r: 5, "fill-opacity": which ? 0 : .7,
          "stroke-width": which ? 2 : 1, class: data.groups[c] + (hit ? "" : " dim"), "data-class": c}, svg);
        mark.addEventListener("mousemove", event => show(about(name, c), event));
        mark.addEventListener("mouseleave", hide);
      });
    });
  }
  function about(name, c) {
    const lines = [...pick].map(select => data.lines[select.value]).filter(Boolean);
    return [name, data.counts[c] + " training images, " + data.groups[c],
      ...lines.map(line => line.label + ": " + percent(line.accuracy[c]))].join("\\n");
  }
  pick.forEach(select => select.addEventListener("change", draw));
  find.addEventListener("input", draw);
  draw();
}
document.querySelectorAll(".perclass").forEach(perClass);
for (const block of document.querySelectorAll(".runs")) {
  block.querySelector("select").addEventListener("change", event => {
    const kind = event.target.value;
    for (const run of block.querySelectorAll("details")) {
      let any = false;
      for (const figure of run.querySelectorAll("figure")) {
        figure.hidden = kind !== "" && figure.dataset.kind !== kind;
        any = any || !figure.hidden;
      }
      run.open = kind !== "" && any;
      run.hidden = kind !== "" && !any;
    }
    block.classList.toggle("beside", kind !== "");
  });
}
for (const mark of document.querySelectorAll("[data-tip]")) {
  mark.addEventListener("mousemove", event => show(mark.dataset.tip, event));
  mark.addEventListener("mouseleave", hide);
}
"""


text = escaping.html


def data_block(value: Any) -> str:
    """Return JSON for a ``script`` element, escaped so that no content ends the element."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: no separators of lines that scripts see
    for letter in "<>&":
        plain = plain.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json">{plain}</script>'


def html_document(title: str, warnings: Iterable[str], body: str) -> str:
    """Return the complete HTML file."""
    warning_lines = "".join(f'<p class="warning">{text(line)}</p>' for line in warnings)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n{warning_lines}\n"
        '<p><input id="filter" type="search" placeholder="filter lines, e.g. cifar100 crt" '
        'aria-label="filter lines"> <span class="note">A click on a heading sorts.</span></p>\n'
        f'{body}\n<div id="tip" role="tooltip"></div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n'
    )
