"""The style sheet of the report: one column, calm, light or dark as the reader's system is."""

CSS = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f8; --card: #ffffff; --ink: #1f2731; --muted: #5c6671; --line: #e2e5e9;
  --soft: #f1f3f5; --shade: #1f273126; --accent: #1667a8;
  --good: #0b6b4f; --good-ground: #e1f3ec; --bad: #a03606; --bad-ground: #fdeadf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161b; --card: #1a2027; --ink: #e4e8ec; --muted: #9aa5b1; --line: #313a44;
    --soft: #222a33; --shade: #00000080; --accent: #7ab8ec;
    --good: #74d3b0; --good-ground: #14382d; --bad: #ffab7d; --bad-ground: #47250f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, header, footer { max-width: 1132px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 40px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px; }
h2 { font-size: 1.35rem; line-height: 1.25; letter-spacing: -0.01em; margin: 0 0 6px; }
h3 { font-size: 1rem; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 74ch; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
.lede { font-size: 1.1rem; }
.muted, small { color: var(--muted); }
small { font-size: 0.8rem; }
nav ul {
  list-style: none; display: flex; flex-wrap: wrap; gap: 6px; padding: 0; margin: 16px 0 24px;
}
nav a {
  display: block; padding: 3px 11px; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: var(--ink); text-decoration: none; font-size: 0.85rem;
}
nav a:hover, nav a:focus-visible { border-color: var(--accent); color: var(--accent); }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; padding: 0; }
.facts div {
  flex: 1 1 150px; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px;
}
.facts dt { color: var(--muted); font-size: 0.8rem; }
.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 24px; margin: 0 0 20px; scroll-margin-top: 12px;
}
.paper { font-size: 0.85rem; color: var(--muted); margin: 0 0 10px; max-width: 110ch; }
.paper b { color: var(--ink); font-weight: 600; }
.judged { list-style: none; margin: 0 0 14px; padding: 0; font-size: 0.9rem; }
.judged li { margin: 4px 0; display: flex; gap: 10px; align-items: baseline; }
.judged a { color: inherit; }
.badge {
  display: inline-block; white-space: nowrap; border-radius: 6px; padding: 1px 8px;
  font-size: 0.82rem; font-weight: 600; border: 1px solid currentColor;
}
.badge.holds { color: var(--good); background: var(--good-ground); }
.badge.fails { color: var(--bad); background: var(--bad-ground); }
.badge.open { color: var(--muted); background: none; border-style: dashed; }
.figures {
  display: grid; gap: 20px 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
}
.figures > * { min-width: 0; }
@media (min-width: 960px) {
  .figures.wide { grid-template-columns: minmax(0, 4fr) minmax(0, 5fr); gap: 20px; }
  .figures.wide th, .figures.wide td { padding-right: 8px; }
}
figure { margin: 8px 0 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 540px; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important;
}
figcaption, .caption { color: var(--muted); font-size: 0.85rem; max-width: 90ch; }
figcaption { margin-top: 4px; }
.caption { margin: 10px 0 6px; }
.scroll { /* a shadow at the side where there is more */
  overflow-x: auto; margin: 0 0 4px;
  background:
    linear-gradient(90deg, var(--card) 40%, transparent) 0 0 / 40px 100% no-repeat local,
    linear-gradient(-90deg, var(--card) 40%, transparent) 100% 0 / 40px 100% no-repeat local,
    linear-gradient(90deg, var(--shade), transparent) 0 0 / 12px 100% no-repeat scroll,
    linear-gradient(-90deg, var(--shade), transparent) 100% 0 / 12px 100% no-repeat scroll;
}
.scroll:focus-visible { outline: 2px solid var(--accent); }
table {
  border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums;
}
.scroll table { overflow-wrap: normal; }
th, td {
  text-align: left; vertical-align: top; padding: 7px 12px 7px 0;
  border-bottom: 1px solid var(--line);
}
thead th { color: var(--muted); font-weight: 600; font-size: 0.82rem; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 7em; }
tbody tr:last-child > * { border-bottom: 0; }
th small, td small { display: inline-block; white-space: nowrap; font-weight: 400; }
.figures th small, .figures td small { display: block; }
tbody .name, .short { white-space: nowrap; }
.swatch {
  display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px;
}
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--accent); font-size: 0.92rem; }
.claims td:nth-child(2), .claims td:nth-child(3) { width: 17%; }
.claims td:nth-child(4) { width: 15%; }
.claims tbody th small { display: block; margin-top: 2px; white-space: normal; }
.claims th a { color: inherit; text-decoration-color: var(--muted); }
.claims tr.fails > * { background: color-mix(in srgb, var(--bad-ground) 45%, transparent); }
.claims tr > :first-child { padding-left: 10px; }
.sample { border-top: 1px solid var(--line); margin: 0; padding: 14px 0; }
.sample > summary { color: inherit; font-size: 1rem; }
.sample pre, .run pre {
  font: 0.86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  white-space: pre-wrap; margin: 0;
}
.sample > summary pre { display: inline; }
.sample .prompt { border-left: 3px solid var(--line); padding-left: 12px; margin: 10px 0 0; }
.answer p small { display: inline-block; margin-right: 8px; }
.tag {
  display: inline-block; background: var(--soft); border-radius: 6px; padding: 1px 8px;
  font-size: 0.78rem; color: var(--muted); margin: 0 8px;
}
.answers {
  display: grid; gap: 12px; margin-top: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 190px), 1fr));
}
.answer { background: var(--soft); border-radius: 10px; padding: 10px 12px; min-width: 0; }
.answer h4 { margin: 0 0 6px; font-size: 0.88rem; }
.answer p { margin: 8px 0 2px; }
.run pre { background: var(--soft); border-radius: 8px; padding: 10px 12px; }
.length {
  background: var(--soft); border-radius: 3px; min-width: 90px; height: 10px; margin-top: 6px;
}
.length div { background: var(--accent); border-radius: 3px; height: 10px; }
dl.judges { font-size: 0.9rem; margin: 0 0 12px; }
dl.judges div { display: flex; flex-wrap: wrap; gap: 0 8px; }
dl.judges dt { font-weight: 600; }
dl.judges dd { margin: 0; color: var(--muted); }
footer { color: var(--muted); font-size: 0.85rem; padding-bottom: 48px; }
@media (max-width: 700px) {
  header { padding-top: 24px; }
  h1 { font-size: 1.65rem; }
  .card { padding: 16px; border-radius: 10px; }
  .claims, .claims tbody, .claims tr, .claims th, .claims td {
    display: block; width: auto !important;
  }
  .claims thead { display: none; }
  .claims tr {
    border: 1px solid var(--line); border-radius: 10px; padding: 10px 12px; margin-bottom: 10px;
  }
  .claims tr > *, .claims tr > :first-child { border: 0; padding: 3px 0; }
  .claims tr.fails { background: var(--bad-ground); border-color: var(--bad); }
  .claims tr.fails > * { background: none; }
  .claims td { display: grid; grid-template-columns: 6.5em 1fr; gap: 8px; }
  .claims td::before { content: attr(data-label); color: var(--muted); font-size: 0.82rem; }
  th small, td small { display: block; }
  .claims td small { display: inline; white-space: normal; }
}
@media print { .card { break-inside: avoid; } nav { display: none; } }
"""
