"""Pictures for the pages, drawn from a few boxes, bars and arrows, as SVG that reads in light and in dark.

Colours are names here, and two palettes in the file: whoever shows it chooses by what its reader prefers. The ground is
drawn too, so that a picture is readable even where page and palette disagree.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

_LIGHT = {
    "ground": "#ffffff",
    "ink": "#1f2328",
    "faint": "#656d76",
    "line": "#8c959f",
    "box": "#f6f8fa",
    "good": "#ddf4e4",
}
_LIGHT |= {"new": "#ddf0ff", "bad": "#ffe5e0"}
_DARK = {
    "ground": "#0d1117",
    "ink": "#e6edf3",
    "faint": "#9198a1",
    "line": "#6e7681",
    "box": "#161b22",
    "good": "#12361f",
}
_DARK |= {"new": "#0c2d4d", "bad": "#4c1a14"}
_FONT = "font-family: -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; font-size: 13px"
LINE = 17
"""From one line of text to the next."""


class Picture:
    """A drawing that grows from top to bottom. Places are in pixels; a text's is its baseline."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = width, height
        self._title = title
        self._drawn: list[str] = []

    def text(
        self, x: float, y: float, words: str, *, colour: str = "ink", anchor: str = "start", bold: bool = False
    ) -> None:
        """One line of text."""
        weight = ' font-weight="600"' if bold else ""
        self._drawn.append(
            f'<text x="{x:g}" y="{y:g}" class="{colour}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        lines: Sequence[str] = (),
        *,
        colour: str = "box",
        dashed: bool = False,
    ) -> None:
        """A box with lines of text in its middle, the first of them bold if there are several."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._drawn.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="{colour} edge"{dashes}/>'
        )
        top = y + height / 2 - (len(lines) - 1) * LINE / 2 + 4.5
        for number, line in enumerate(lines):
            first = number == 0
            colour_of_line = "ink" if first else "faint"
            self.text(
                x + width / 2,
                top + number * LINE,
                line,
                anchor="middle",
                bold=first and len(lines) > 1,
                colour=colour_of_line,
            )

    def arrow(self, x: float, y: float, to_x: float, to_y: float, *, dashed: bool = False) -> None:
        """A line with a head at its end."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._drawn.append(
            f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" class="arrow" marker-end="url(#head)"{dashes}/>'
        )

    def line(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A line without a head."""
        self._drawn.append(f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" class="arrow"/>')

    def svg(self) -> str:
        """The file."""
        width, height = self._size
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img">',
                f"<title>{escape(self._title)}</title>",
                f"<style>\ntext {{ {_FONT} }}\n{_palette(_LIGHT)}",
                f"@media (prefers-color-scheme: dark) {{\n{_palette(_DARK)}}}\n</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
                'orient="auto">'
                '<path d="M0,0 L8,4 L0,8 z" class="head"/></marker></defs>',
                f'<rect width="{width}" height="{height}" rx="8" class="ground"/>',
                *self._drawn,
                "</svg>\n",
            ]
        )


def _palette(colours: dict[str, str]) -> str:
    fills = "".join(f".{name} {{ fill: {colour} }}\n" for name, colour in colours.items() if name != "line")
    return f"{fills}.edge, .arrow {{ stroke: {colours['line']} }}\n.head {{ fill: {colours['line']} }}\n"
