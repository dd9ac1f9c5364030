"""Draws the diagrams of the documents: `python docs/diagrams/draw.py`.

The rooms come from the sources: their layers from `tests/test_tidy.py`, their descriptions from
their docstrings. A test fails when a picture differs from what is drawn now.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]

INK, PALE, LINE = "#1d2733", "#5b6875", "#9aa7b4"
HOT, WARM, COLD, GLACIER, PLAIN = "#ffd9cf", "#ffeccb", "#d6e9f8", "#dfe3f4", "#f3f5f7"
FONT = "ui-sans-serif, system-ui, 'DejaVu Sans', sans-serif"


class Drawing:
    """Boxes, texts and arrows, from the top left, in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            f' font-family="{FONT}" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
            f' markerHeight="8" orient="auto-start-reverse">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{PALE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str = PLAIN) -> None:
        """Draw a box with round corners."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}"'
            f' stroke="{LINE}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, bold: bool = False, pale: bool = False,
        anchor: str = "start", size: int = 14,
    ) -> None:  # fmt: skip
        """Write one line; `y` is its foot."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{PALE if pale else INK}" text-anchor="{anchor}"'
            f' font-size="{size}"{weight}>{escape(words)}</text>'
        )

    def lines(self, x: float, y: float, words: str, columns: int, *, size: int = 12) -> float:
        """Write several lines of at most so many letters, and return the foot of the last."""
        for line in textwrap.wrap(words, columns):
            self.text(x, y, line, pale=True, size=size)
            y += size * 1.35
        return y - size * 1.35

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """Draw a line through the points with a head at its end."""
        path = " ".join(
            f"{'L' if number else 'M'}{x:g},{y:g}" for number, (x, y) in enumerate(points)
        )
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{PALE}" stroke-width="1.5"'
            f' marker-end="url(#head)"{dash}/>'
        )

    def finish(self) -> str:
        """Return the SVG."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def tiers() -> str:
    """Draw the four tiers, and why a value moves between them."""
    drawing = Drawing(860, 430, "Four tiers: what each holds, and why a value moves up or down")
    rows = (
        ("hot", "GPU memory, or RAM in its place", "live objects", "microseconds", HOT),
        ("warm", "RAM", "live objects", "microseconds", WARM),
        ("cold", "local disk", "frames: checked and compressed", "below 1 ms if small", COLD),
        (
            "glacier",
            "S3, GCS, Azure or a directory",
            "the same frames, compressed harder",
            "0.03 seconds to hours",
            GLACIER,
        ),
    )
    for number, (name, medium, content, time, fill) in enumerate(rows):
        y = 24 + number * 100
        drawing.box(220, y, 420, 72, fill)
        drawing.text(240, y + 28, name, bold=True, size=16)
        drawing.text(620, y + 28, medium, anchor="end")
        drawing.text(240, y + 52, content, pale=True, size=12)
        drawing.text(620, y + 52, time, pale=True, anchor="end", size=12)
    for number, why in enumerate(
        ("not read for seconds", "RAM is needed", "rules, or disk is needed")
    ):
        y = 24 + number * 100 + 72
        drawing.arrow((250, y + 2), (250, y + 26))
        drawing.arrow((610, y + 26), (610, y + 2))
        drawing.text(262, y + 19, why, pale=True, size=12)
        drawing.text(598, y + 19, "read again", pale=True, anchor="end", size=12)
    drawing.text(24, 64, "store(key, value)", bold=True)
    drawing.lines(24, 84, "enters RAM, or the tier that you name", 24)
    drawing.arrow((160, 60), (216, 60))
    drawing.text(836, 64, "retrieve(key)", bold=True, anchor="end")
    drawing.text(836, 84, "from where it is", pale=True, anchor="end", size=12)
    drawing.arrow((644, 60), (730, 60))
    drawing.lines(
        24, 250, "From here on a value survives a kill, from the moment that store returns.", 26
    )
    return drawing.finish()


def layers() -> list[list[str]]:
    """Return the rooms of the package, the lowest layer first."""
    tree = ast.parse((ROOT / "tests" / "test_tidy.py").read_text("utf-8"))
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    return [[room for room in row if not room.startswith("_")] for row in ast.literal_eval(table)]


def description(room: str) -> str:
    """Return the first line of the docstring of a package or a module."""
    package = ROOT / "src" / "memories"
    path = package / room / "__init__.py"
    path = path if path.exists() else package / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.splitlines()[0].replace("`", "")


def rooms() -> str:
    """Draw the packages in their layers; a package imports from the rows under it only."""
    rows = [row for row in reversed(layers()) if row]
    gap, width, left = 12, 1000, 20
    shares = [(width - 2 * left - gap * (len(row) - 1)) / len(row) for row in rows]
    columns = [int((share - 28) / 6.4) for share in shares]
    heights = [
        42 + 17 * max(len(textwrap.wrap(description(room), wide)) for room in row)
        for row, wide in zip(rows, columns, strict=True)
    ]
    drawing = Drawing(width, sum(heights) + gap * len(rows) + 50, "The packages, in layers")
    y = 20.0
    for number, row in enumerate(rows):
        for place, room in enumerate(row):
            x = left + place * (shares[number] + gap)
            drawing.box(x, y, shares[number], heights[number], PLAIN if number % 2 else COLD)
            drawing.text(x + 14, y + 24, room, bold=True)
            drawing.lines(x + 14, y + 44, description(room), columns[number])
        y += heights[number] + gap
    drawing.text(width / 2, y + 14, "imports point down only", pale=True, anchor="middle")
    return drawing.finish()


def _chain(title: str, steps: list[tuple[str, str, str]], exits: dict[int, tuple[str, str]]) -> str:
    """Draw steps under each other; an exit leads from a step to an end on the right."""
    height, gap = 70, 26
    drawing = Drawing(860, 20 + len(steps) * (height + gap), title)
    for number, (name, what, fill) in enumerate(steps):
        y = 20 + number * (height + gap)
        drawing.box(24, y, 470, height, fill)
        drawing.text(42, y + 26, name, bold=True)
        drawing.lines(42, y + 47, what, 66)
        if number + 1 < len(steps):
            drawing.arrow((259, y + height + 2), (259, y + height + gap - 3))
        if number in exits:
            word, end = exits[number]
            drawing.arrow((496, y + height / 2), (606, y + height / 2))
            drawing.text(551, y + height / 2 - 7, word, pale=True, anchor="middle", size=12)
            drawing.box(610, y, 226, height, "#e4f3e4")
            drawing.lines(626, y + 27, end, 31)
    return drawing.finish()


def reading() -> str:
    """Draw where a `retrieve` looks, in order."""
    return _chain(
        "retrieve(key): where it looks, in order",
        [
            ("front", "a dict of the keys that are read again and again", HOT),
            (
                "catalog.entries",
                "one dict of all versions in RAM; no lock, no clock, no event",
                WARM,
            ),
            (
                "disk: the short way",
                "index, one read of up to 256 KB, one pass that verifies, decode",
                COLD,
            ),
            (
                "disk and bucket: the long way",
                "a mapping or range requests; head first, then the rest",
                COLD,
            ),
            (
                "the key is nowhere",
                "looked up in the index of cold and in that of the archive",
                PLAIN,
            ),
        ],
        {
            0: ("found", "a read-only view; one count"),
            1: ("found", "a read-only view; one count"),
            2: ("found", "the value; the migrator may bring it up"),
            3: ("found", "the value; regions read only what they touch"),
            4: ("raises", "KeyError, and it means nothing else"),
        },
    )


def writing() -> str:
    """Draw what a `store` does, in order."""
    return _chain(
        "store(key, value): what happens, in order",
        [
            (
                "check and take apart",
                "key, options; the codec makes parts that no other code can write",
                PLAIN,
            ),
            (
                "lock the key, give the version its number",
                "writers of one key wait for each other; readers never wait",
                PLAIN,
            ),
            (
                "make room",
                "while the bytes do not fit, the policy names a victim to move down",
                WARM,
            ),
            (
                "write, if the key was durable or is to be",
                "one frame appended to the log, checksummed",
                COLD,
            ),
            ("commit", "one assignment in the catalog, or the record in the log", HOT),
            (
                "release the old version, tell the observers",
                "its bytes count until the last view of them is gone",
                PLAIN,
            ),
        ],
        {
            0: ("bad input", "an error that names key, type and what to do; nothing has changed"),
            2: ("no victim", "TierFullError; nothing has changed, nothing was dropped"),
            3: ("disk fails", "StorageError; the old version is still there"),
            4: ("done", "a reader sees the old version or the new one, never a mixture"),
        },
    )


def pictures() -> Iterator[tuple[Path, str]]:
    """Yield each file and what belongs into it."""
    for draw in (tiers, rooms, reading, writing):
        yield FOLDER / f"{draw.__name__}.svg", draw()


def main() -> None:
    """Write every picture."""
    for path, svg in pictures():
        path.write_text(svg, "utf-8")


if __name__ == "__main__":
    main()
