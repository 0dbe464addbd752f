"""Scripts of HTML files: sorting for all; for reports filter, tooltips, plot of classes, choice of figures and theme.

Names are inserted as textContent only, never as HTML.
"""

from __future__ import annotations

SORTING = """
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
function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const now = head.getAttribute("aria-sort");
      sortBy(table, column, now ? now === "ascending" : numeric);
    });
  });
}
document.querySelectorAll("table.sortable").forEach(sortable);
"""

_REPORT = """
function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\\s+/).filter(Boolean);
  const rows = [...document.querySelectorAll("table.sortable tr[data-about]")];
  for (const row of rows) {
    const text = (row.dataset.about + " " + row.textContent).toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
  const shown = rows.filter(row => !row.hidden).length;
  document.getElementById("matches").textContent = words.length ? shown + " of " + rows.length + " rows" : "";
}
document.getElementById("filter").addEventListener("input", filter);
const theme = document.getElementById("theme"), root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
function nameTheme() { theme.textContent = isDark() ? "Light mode" : "Dark mode"; }
try { const kept = localStorage.getItem("ltr-theme"); if (kept) root.dataset.theme = kept; } catch (error) {}
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("ltr-theme", root.dataset.theme); } catch (error) {}
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();
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
function add(name, parent, text) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
const percent = value => value === null ? "\\u2013" : (100 * value).toFixed(1) + " %";
function perClass(block) {
  const data = JSON.parse(block.querySelector("script").textContent);
  const svg = block.querySelector("svg"), pick = block.querySelectorAll("select"), find = block.querySelector("input");
  const listing = block.querySelector("details");
  const largest = Math.max(1, ...data.counts), smallest = Math.max(1, Math.min(...data.counts));
  const span = Math.log(largest) - Math.log(smallest) || 1;
  const x = count => 55 + 620 * (Math.log(Math.max(1, count)) - Math.log(smallest)) / span;
  const y = value => 300 - 270 * value;
  const chosen = () => [...pick].map(select => data.lines[select.value]).filter(Boolean);
  const isWanted = name => !find.value || name.toLowerCase().includes(find.value.toLowerCase());
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
    pick.forEach((select, which) => {
      const line = data.lines[select.value];
      if (!line) return;
      data.names.forEach((name, c) => {
        const value = line.accuracy[c];
        if (value === null) return;
        const mark = make("circle", {cx: x(data.counts[c]), cy: y(value), r: 5, "fill-opacity": which ? 0 : .7,
          "stroke-width": which ? 2 : 1, class: data.groups[c] + (isWanted(name) ? "" : " dim"), "data-class": c}, svg);
        mark.addEventListener("mousemove", event => show(about(name, c), event));
        mark.addEventListener("mouseleave", hide);
      });
    });
    const lines = chosen();  // paper has no menus
    const both = lines.length > 1 ? "; outlined: " + lines[1].label : "";
    block.querySelector(".shown").textContent = lines.length ? "filled: " + lines[0].label + both : "";
    list();
  }
  function about(name, c) {
    return [name, data.counts[c] + " training images, " + data.groups[c],
      ...chosen().map(line => line.label + ": " + percent(line.accuracy[c]))].join("\\n");
  }
  function list() {
    const place = listing.querySelector("div");
    place.replaceChildren();
    if (!listing.open) return;
    const table = add("table", place), lines = chosen();
    table.className = "sortable";
    const heads = add("tr", table.createTHead());
    const titles = ["class", "training images", "group", ...lines.map(line => line.label)];
    if (lines.length > 1) titles.push("difference");
    titles.forEach((title, column) => {
      const head = add("th", heads);
      head.scope = "col";
      if (column !== 0 && column !== 2) head.className = "number";
      add("button", head, title).type = "button";
    });
    const body = table.createTBody();
    data.names.forEach((name, c) => {
      if (!isWanted(name)) return;
      const row = add("tr", body), values = lines.map(line => line.accuracy[c]);
      add("td", row, name);
      const cell = (text, value) => {
        const node = add("td", row, text);
        node.className = "number";
        if (value !== null) node.dataset.value = value;
      };
      cell(data.counts[c], data.counts[c]);
      add("td", row, data.groups[c]);
      values.forEach(value => cell(percent(value), value));
      if (values.length > 1) {
        const both = values[0] !== null && values[1] !== null, gap = both ? values[0] - values[1] : null;
        cell(both ? (gap > 0 ? "+" : "") + (100 * gap).toFixed(1) : "\\u2013", gap);
      }
    });
    sortable(table);
  }
  pick.forEach(select => select.addEventListener("change", draw));
  find.addEventListener("input", draw);
  listing.addEventListener("toggle", list);
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
      run.open = kind === "" || any;
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

SCRIPT = SORTING + _REPORT
