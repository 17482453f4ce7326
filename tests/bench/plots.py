"""Bars as SVG: one for each contender, with the least and the greatest sample as a line."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 640, 190, 90, 26, 44
OURS_COLOUR, THEIRS_COLOUR, SPREAD_COLOUR = "#1f6feb", "#9aa4af", "#24292f"


def bars(
    title: str, medians: Mapping[str, float], spread: Mapping[str, list[float]], ours: str
) -> str:
    """Draw one figure."""
    longest = max(high for _, high in spread.values()) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    rows = [
        _row(TOP + number * ROW, name, value, (spread[name], scale, name == ours))
        for number, (name, value) in enumerate(medians.items())
    ]
    height = TOP + len(rows) * ROW + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="24" font-size="15">{escape(title)}</text>{"".join(rows)}</svg>\n'
    )


def _row(top: int, name: str, value: float, drawn: tuple[list[float], float, bool]) -> str:
    (low, high), scale, is_ours = drawn
    colour, middle = OURS_COLOUR if is_ours else THEIRS_COLOUR, top + ROW / 2 - 3
    start, end = LEFT + low * scale, LEFT + high * scale
    return (
        f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{value * scale:.1f}" height="{ROW - 8}" '
        f'fill="{colour}"/>'
        f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}" '
        f'stroke="{SPREAD_COLOUR}" stroke-width="2"/>'
        f'<text x="{end + 8:.1f}" y="{middle + 4}">{value:,.4g}</text>'
    )
