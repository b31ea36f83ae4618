"""The style sheet of the page: light and dark, from a phone's width to a wide screen's."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --sunk: #f0f2f5; --line: #d9dde3;
  --text: #1b1f24; --soft: #57606a; --link: #0a58c2;
  --good: #14713a; --good-fill: #e4f5ea; --good-line: #9fd4b3;
  --bad: #b3201f; --bad-fill: #fdecea; --bad-line: #f0b4af;
  --warn: #7a5200; --warn-fill: #fff6df; --warn-line: #e8cd84;
  --bar: #4573b8; --source: #ffb000; --artifact: #3fc1ff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1216; --card: #171b21; --sunk: #1f242c; --line: #323942;
    --text: #e7eaee; --soft: #a3adb8; --link: #7db4ff;
    --good: #63d18d; --good-fill: #12281b; --good-line: #2c6a44;
    --bad: #ff8f87; --bad-fill: #341717; --bad-line: #7d3532;
    --warn: #f0c75e; --warn-fill: #2c2411; --warn-line: #6b5520;
    --bar: #6f9fe6;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 48px; }
h1, h2, h3, h4 { line-height: 1.25; margin: 0; overflow-wrap: anywhere; text-wrap: balance; }
h2 { font-size: 21px; } h3 { font-size: 16px; margin-top: 28px; }
h4 { font-size: 15px; margin-top: 20px; }
p { margin: 8px 0 0; overflow-wrap: anywhere; }
a { color: var(--link); }
code, .mono {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .92em; overflow-wrap: anywhere;
}
.soft { color: var(--soft); }
.small { font-size: 13px; }

.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px 24px; margin-top: 20px;
}
.banner { border-left: 6px solid var(--good); }
.banner.bad { border-left-color: var(--bad); }
.kicker { margin: 0 0 10px; color: var(--soft); font-size: 13px; letter-spacing: .02em; }
.verdict { display: flex; align-items: center; gap: 14px; }
.verdict h1 { font-size: 30px; }
.good-text { color: var(--good); } .bad-text { color: var(--bad); }
.mark { flex: none; width: 36px; height: 36px; }
.lead { font-size: 17px; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px 24px;
  margin: 18px 0 0; padding-top: 16px; border-top: 1px solid var(--line);
}
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }

.head { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 12px; }
.badge {
  display: inline-block; padding: 1px 9px; border-radius: 999px; border: 1px solid;
  font-size: 13px; font-weight: 600; white-space: nowrap;
}
.badge.good { color: var(--good); background: var(--good-fill); border-color: var(--good-line); }
.badge.bad { color: var(--bad); background: var(--bad-fill); border-color: var(--bad-line); }

.callout {
  margin-top: 18px; padding: 14px 18px 16px; border-radius: 8px;
  background: var(--warn-fill); border: 1px solid var(--warn-line);
}
.callout h3 { margin: 0; color: var(--warn); }
.callout ol { margin: 10px 0 0; padding-left: 22px; }
.callout li + li { margin-top: 10px; }
.callout li p { margin: 2px 0 0; }
.callout.bad { background: var(--bad-fill); border-color: var(--bad-line); }
.callout.bad h3 { color: var(--bad); }

.scroll {
  overflow-x: auto; margin-top: 12px; border: 1px solid var(--line); border-radius: 8px;
  position: relative;
}
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 9px 12px; color: var(--soft); font-size: 13px; }
/* A caption stays where it is read while its table is moved. */
caption span { display: inline-block; position: sticky; left: 12px; max-width: calc(100vw - 76px); }
th, td {
  padding: 7px 12px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line);
}
thead th {
  font-size: 13px; line-height: 1.3; font-weight: 600; color: var(--soft); background: var(--sunk);
  border-top: 0; vertical-align: bottom;
}
thead th.num { white-space: normal; }
caption + thead th { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; }
tbody th.text { min-width: 152px; }
tbody th .of { font-weight: 400; }
td.num, th.num { text-align: right; white-space: nowrap; }
td.num .small, .of { display: block; color: var(--soft); font-size: 12.5px; }
td.text, th.text { min-width: 110px; overflow-wrap: anywhere; }
td.wide { min-width: 260px; }
tr.bad td, tr.bad th { background: var(--bad-fill); }
.key { font-weight: 650; }
.place { white-space: nowrap; }

.reasons { margin: 10px 0 0; }
.reasons dt { font-weight: 600; margin-top: 12px; overflow-wrap: anywhere; }
.reasons dd { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
ul.plain { margin: 8px 0 0; padding-left: 20px; overflow-wrap: anywhere; }

.view {
  margin: 14px 0 0; padding: 14px 16px 16px; border: 1px solid var(--line);
  border-radius: 8px;
}
.view figcaption { font-size: 14px; overflow-wrap: anywhere; }
.tiles {
  display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 14px;
  margin-top: 12px;
}
.tile p { margin: 0 0 6px; font-size: 13px; font-weight: 600; }
.tile .note { margin: 6px 0 0; font-weight: 400; color: var(--soft); font-size: 12.5px; }
.stage {
  position: relative; overflow: hidden; border-radius: 4px; border: 1px solid var(--line);
  background: repeating-conic-gradient(var(--sunk) 0 25%, var(--card) 0 50%) 0 0 / 14px 14px;
}
.stage img { display: block; image-rendering: pixelated; width: 100%; height: auto; }
.stage.inset img { position: absolute; }
.stage svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.scale {
  height: 12px; border-radius: 3px; margin-top: 8px; position: relative;
  border: 1px solid var(--line);
}
.scale i { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--text); }
.ends { display: flex; justify-content: space-between; font-size: 12.5px; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.legend {
  display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 6px 0 0; font-size: 12.5px;
  color: var(--soft);
}
.legend svg { width: 26px; height: 10px; vertical-align: middle; margin-right: 5px; }
.quad { fill: none; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.quad.halo { stroke: #000; stroke-width: 5; stroke-opacity: .65; }
.quad.source { stroke: var(--source); stroke-width: 2.5; }
.quad.artifact { stroke: var(--artifact); stroke-width: 2.5; stroke-dasharray: 7 5; }
.dot { stroke: #000; stroke-width: 1; vector-effect: non-scaling-stroke; }
.dot.source { fill: var(--source); } .dot.artifact { fill: var(--artifact); }

.charts {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 16px;
}
.chart { margin: 12px 0 0; min-width: 0; }
.chart figcaption { font-size: 14px; overflow-wrap: anywhere; }
.chart svg { display: block; width: 100%; height: auto; margin-top: 6px; }
.curve svg { min-width: 880px; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .strong { fill: var(--text); font-weight: 600; }
svg .alarm { fill: var(--bad); font-weight: 600; }
.axis { stroke: var(--line); fill: none; }
.grid { stroke: var(--line); stroke-dasharray: 2 4; fill: none; }
.bar { fill: var(--bar); } .bar.over { fill: var(--bad); } .bar.equal { fill: var(--soft); }
.limit { stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 5 3; fill: none; }
.line { fill: none; stroke: var(--bar); stroke-width: 1.5; }
.point { fill: var(--bar); stroke: var(--card); stroke-width: 1; }
.point.first { fill: var(--bad); stroke: var(--card); }
.drop { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 4 3; }

details { margin-top: 12px; }
summary { cursor: pointer; color: var(--link); }
footer { margin-top: 24px; color: var(--soft); font-size: 13px; }

@media (max-width: 760px) {
  main { padding: 12px 10px 32px; }
  .card { padding: 16px 14px 18px; margin-top: 12px; border-radius: 8px; }
  .verdict h1 { font-size: 25px; }
  .facts { grid-template-columns: 1fr 1fr; gap: 12px 14px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 10px; }
  .view { padding: 12px 10px; }
}
@media print {
  details::details-content { content-visibility: visible; }
  .card { break-inside: avoid; }
}
"""
