"""Line charts as SVG text, readable on light and on dark pages."""

import math
from html import escape


WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 36, 48  # margins; the legend is on the right
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
STYLE = """
text { font: 12px sans-serif; fill: #222 } .axis { stroke: #888; stroke-width: 1 }
.grid { stroke: #888; stroke-opacity: 0.25 } .title { font-weight: bold }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: dict[str, list[tuple[float, float]]],
    logarithmic: bool = False,
) -> str:
    """
    Draws a chart of lines with a dot at each of their points, or, of many points, without.

    Args:
        series (`dict[str, list[tuple[float, float]]]`): Points of each line, from left to right, under its name.
        logarithmic (`bool`, *optional*, defaults to `False`): Whether the horizontal axis is, with a tick at each
            place where there is a point.
    """
    xs = sorted({x for points in series.values() for x, _ in points})
    y_ticks = round_ticks([y for points in series.values() for _, y in points])
    x_ticks = xs if logarithmic or len(xs) <= 10 else [tick for tick in round_ticks(xs) if tick <= xs[-1]]
    scale = math.log2 if logarithmic else float
    first, last = scale(min(xs[0], x_ticks[0])), scale(xs[-1])

    def across(x: float) -> float:
        share = (scale(x) - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f"<style>{STYLE}</style>", _text(LEFT, 18, title, ' class="title"')]
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>')
        parts.append(_text(LEFT - 6, down(tick) + 4, f"{tick:g}", ' text-anchor="end"'))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts += [_text(across(tick), bottom + 16, f"{tick:g}", ' text-anchor="middle"') for tick in x_ticks]
    parts.append(_text((LEFT + right) / 2, HEIGHT - 10, x_label, ' text-anchor="middle"'))
    middle = (TOP + bottom) / 2
    parts.append(_text(14, middle, y_label, f' text-anchor="middle" transform="rotate(-90 14 {middle})"'))
    for number, (name, points) in enumerate(series.items()):
        colour, dashes = COLOURS[number % len(COLOURS)], "" if number < len(COLOURS) else ' stroke-dasharray="4 3"'
        places = [(across(x), down(y)) for x, y in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dashes} points="{line}"/>')
        if len(places) <= 12:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        height = TOP + 8 + 18 * number
        parts.append(
            f'<line stroke="{colour}" stroke-width="2"{dashes} x1="{right + 12}" x2="{right + 30}" '
            f'y1="{height}" y2="{height}"/>'
        )
        parts.append(_text(right + 35, height + 4, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>\n"])


def round_ticks(values: list[float]) -> list[float]:
    """Spaces four to nine round numbers evenly, from one at or below all values to one at or above them."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if spread / (size * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
