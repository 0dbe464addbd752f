"""Style of an HTML report: light, dark and printed."""

from __future__ import annotations

from ltr.report.style import GROUP_COLOURS, INK, PALE, WARNING

_LIGHT = f"""--ink: {INK}; --pale: {PALE}; --soft: #555555; --paper: #ffffff; --rule: #e4e4e4; --edge: #8a8a8a;
  --warning: {WARNING}; --focus: #0b57d0; --link: #0b57d0; --hover: #f2f5f9; --many: {GROUP_COLOURS["many"]};
  --medium: {GROUP_COLOURS["medium"]}; --few: {GROUP_COLOURS["few"]}; color-scheme: light"""
# the three light colours of the same scheme (Tol, "medium contrast"), which differ on a dark background
_DARK = """--ink: #e8e8e8; --pale: #a0a0a0; --soft: #b9bec5; --paper: #15171a; --rule: #34383e; --edge: #7c838c;
  --warning: #ff8a80; --focus: #8ab4f8; --link: #8ab4f8; --hover: #1f2329; --many: #6699CC;
  --medium: #EECC66; --few: #EE99AA; color-scheme: dark"""

STYLE = f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {_DARK} }} }}
:root[data-theme=dark] {{ {_DARK} }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.2em auto;
  max-width: 1880px; padding: 0 1.2em }}
h1 {{ font-size: 1.4em; margin: 0 }} h2 {{ font-size: 1.15em; margin: 2em 0 .4em; border-top: 1px solid var(--rule);
  padding-top: 1em; overflow-wrap: anywhere }}
h3 {{ font-size: 1em; margin: 1.2em 0 .3em; overflow-wrap: anywhere }} a {{ color: var(--link) }}
:focus-visible {{ outline: 3px solid var(--focus); outline-offset: 2px }}
.skip {{ position: absolute; left: -99em }} .skip:focus {{ left: 1em; top: .5em; background: var(--paper);
  padding: .3em .6em; z-index: 3 }}
header {{ display: flex; flex-wrap: wrap; gap: .5em 1em; align-items: center; justify-content: space-between }}
.warning {{ color: var(--warning) }} .note {{ color: var(--soft); font-size: .9em; margin: .2em 0 }}
.notices {{ margin: .8em 0; padding-left: 1.2em }} .notices li {{ overflow-wrap: anywhere }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5em 0 }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid var(--rule); text-align: left; white-space: nowrap }}
th {{ font-weight: 600; vertical-align: top }}
td:first-child, th[scope=row], .summary td {{ white-space: normal; overflow-wrap: anywhere; min-width: 10.5em }}
.summary th[scope=row] {{ min-width: 4em }} th[scope=row] {{ font-weight: 400 }}
.summary td.number {{ white-space: nowrap; min-width: 0 }}
th.number, td.number {{ text-align: right; white-space: nowrap }}
th button {{ font: inherit; border: 0; background: none; padding: 0; cursor: pointer; color: inherit }}
th[aria-sort=ascending] button::after {{ content: " ▲" }} th[aria-sort=descending] button::after {{ content: " ▼" }}
td.best {{ font-weight: 700 }} td.tie {{ text-decoration: underline dotted }} td.warning {{ color: var(--warning) }}
tbody tr:hover {{ background: var(--hover) }}
input[type=search], select, .theme {{ font: inherit; padding: .25em .5em; border: 1px solid var(--edge);
  border-radius: 3px; max-width: min(26em, 100%); color: var(--ink); background: var(--paper) }}
.theme {{ cursor: pointer }} .controls {{ display: flex; flex-wrap: wrap; gap: .4em .8em; align-items: center }}
.scroll {{ overflow-x: auto }} svg {{ width: 100%; height: auto; font: 13px system-ui, sans-serif }}
svg text {{ fill: var(--ink) }}
.many {{ color: var(--many); fill: var(--many); stroke: var(--many) }}
.medium {{ color: var(--medium); fill: var(--medium); stroke: var(--medium) }}
.few {{ color: var(--few); fill: var(--few); stroke: var(--few) }}
.other {{ color: var(--pale); fill: var(--pale); stroke: var(--pale) }}
.line {{ fill: var(--link); stroke: var(--link) }} .limited {{ fill: var(--paper); stroke: var(--warning) }}
.axis {{ stroke: var(--edge) }} .grid {{ stroke: var(--rule) }} .dim {{ opacity: .12 }}
.panels, .run-figures, .beside {{ display: grid; gap: .8em 1.4em;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)) }}
.panels > *, .run-figures > *, .beside > * {{ min-width: 0 }} .panels svg {{ max-width: 760px }}
.beside > h3, .beside > .controls {{ grid-column: 1 / -1; margin: 0 }} .beside .run-figures {{ display: block }}
.run-figures img {{ width: 100%; height: auto; background: #fff; border-radius: 3px }}
details > summary {{ cursor: pointer; padding: .2em 0 }} .runs > details > summary {{ font-weight: 600 }}
figure {{ margin: 0 }} figcaption {{ color: var(--soft); font-size: .9em; overflow-wrap: anywhere }}
#tip {{ position: fixed; display: none; background: #222; color: #fff; padding: .3em .6em; border-radius: 3px;
  font-size: 13px; pointer-events: none; max-width: 30em; white-space: pre-line; z-index: 2 }}
@media print {{
  :root, :root[data-theme], :root:not([data-theme=light]) {{ {_LIGHT} }}
  body {{ margin: 0; max-width: none; padding: 0; font-size: 10pt }} .theme, .controls, .skip, #tip,
  details:not([open]) {{ display: none }}
  .scroll {{ overflow: visible }} th, td {{ padding: .15em .4em }} td, th.number, th button {{ white-space: normal }}
  .panels, .run-figures {{ grid-template-columns: 1fr 1fr }}
  figure, tr, .panels > * {{ break-inside: avoid }} h2, h3, summary {{ break-after: avoid }}
}}
"""
