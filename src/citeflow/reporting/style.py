"""How report.html looks: on a wide screen, a telephone, dark, and on paper."""

from citeflow.reporting.drawing import COLOURS

DARK = {
    "ink": "#e6ebf0",
    "muted": "#a5b1bd",
    "faint": "#333d47",
    "card": "#1b222a",
    "blue": "#56b4e9",
    "sky": "#2f5f7d",
    "vermillion": "#ff8b4a",
    "green": "#2fc79a",
    "purple": "#e08fc0",
    "orange": "#f0b440",
    "grey": "#77838f",
}
"""What takes the place of each of COLOURS on a dark ground."""

RULES = """
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 3rem }
h1 { margin: 0; font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.2; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .9rem; font-size: 1.3rem }
h3 { margin: 0 0 .5rem; font-size: 1.02rem }
.eyebrow { margin: 0 0 .3rem; color: var(--muted); letter-spacing: .06em; text-transform: uppercase; font-size: .8rem }
.headline { margin: .5rem 0 1.6rem; font-size: 1.1rem; color: var(--muted); max-width: 46rem }
.tiles { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 0 }
.tiles div, .card { background: var(--card); border: 1px solid var(--faint); border-radius: 10px }
.tiles div { padding: .8rem 1rem; display: flex; flex-direction: column }
.tiles dt { color: var(--muted); font-size: .86rem }
.tiles dd { margin: 0; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap }
.tiles div:first-child dd:not(.note) { color: var(--blue) }
.tiles .note { font-size: .82rem; font-weight: 400; color: var(--muted); white-space: normal }
.grid { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  align-items: start }
.card { padding: 1rem 1.1rem; margin: 0; min-width: 0; overflow-x: auto }
.stack { display: grid; gap: 1.1rem }
.even { align-items: stretch }
.remark { color: var(--muted); font-size: .88rem; margin: .7rem 0 0 }
figure { display: flex; flex-direction: column }
figure svg { display: block; width: 100%; height: auto; max-width: 620px; margin: auto }
figcaption { color: var(--muted); font-size: .88rem; padding-top: .6rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 650; padding-bottom: .45rem }
th, td { padding: .36rem .5rem; border-top: 1px solid var(--faint); text-align: right; vertical-align: top }
thead th { border-top: 0; color: var(--muted); font-weight: 500; font-size: .86rem }
th:first-child { text-align: left; font-weight: 400; padding-left: 0 }
td:last-child, th:last-child { padding-right: 0 }
tr.strong > * { font-weight: 650 }
details.card { margin-top: 1.1rem }
summary { cursor: pointer; font-weight: 650 }
pre { margin: .8rem 0 0; overflow-x: auto; font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
footer { margin-top: 2.5rem; color: var(--muted); font-size: .86rem }
@media print {
  :root { --ground: #fff } .tiles { grid-template-columns: repeat(3, 1fr) }
  body { font-size: 11pt } main { padding: 0; max-width: none } h2 { break-after: avoid }
  .card, .tiles div { break-inside: avoid } .grid { grid-template-columns: 1fr 1fr }
}
"""


def css() -> str:
    """The whole style sheet."""
    light = _variables(COLOURS) + " --ground: #f4f6f8"
    dark = _variables(DARK) + " --ground: #11161b"
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}{RULES}"
    )


def follow_theme(svg: str) -> str:
    """A drawing whose colours are the page's variables, so that it turns dark with the page."""
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
