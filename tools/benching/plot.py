"""What bench/growth prints, as one SVG a series: cost of an event against the size of the log.

    python3 tools/benching/plot.py growth.json docs/plots

A picture of lines and texts only, that reads on white and on black."""

import json
import math
import os
import sys

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 44, 44

FILES = {
    "append, new streams": "append-new-streams",
    "append, old streams": "append-old-streams",
    "condition": "condition",
    "stream read": "stream-read",
}


def ceiling(value):
    """The next 1, 2 or 5 times a power of ten, and into how many parts it divides well."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1
    for factor, parts in ((1, 5), (2, 4), (5, 5), (10, 5)):
        if value <= factor * power:
            return factor * power, parts
    return 10 * power, 5


def number(value):
    return f"{value:,.10g}"


class Picture:
    def __init__(self, title, x_label, y_label, x_max, y_max):
        self.x_max, (self.y_max, self.y_parts) = x_max, ceiling(y_max)
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-label="{title}">',
            "<style>text{font:13px sans-serif;fill:#777}.title{font-size:15px;fill:#888}"
            ".grid{stroke:#8886;stroke-width:1}.line{fill:none;stroke-width:2}</style>",
            f'<text class="title" x="{LEFT}" y="20">{title}</text>',
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{x_label}</text>',
            f'<text x="{LEFT}" y="{TOP - 8}">{y_label}</text>',
        ]
        for i in range(self.y_parts + 1):
            value = self.y_max * i / self.y_parts
            y = self.y(value)
            self.parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
            self.parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
        for i in range(5):
            value = x_max * i / 4
            self.parts.append(f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                              f"{number(value)}</text>")

    def x(self, value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x_max

    def y(self, value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, self.y_max) / self.y_max)

    def line(self, points, colour, name, place, dashes=""):
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        at = WIDTH - RIGHT - 150 * place
        self.parts.append(f'<polyline class="line" stroke="{colour}"{dash} points="{path}"/>')
        self.parts.append(f'<line class="line" stroke="{colour}"{dash} x1="{at - 142}" y1="{TOP - 13}" x2="{at - 118}" '
                          f'y2="{TOP - 13}"/>')
        self.parts.append(f'<text x="{at - 112}" y="{TOP - 8}">{name}</text>')

    def text(self):
        return "\n".join([*self.parts, "</svg>", ""])


def load(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def draw(points, folder):
    """Returns the paths that were written."""
    os.makedirs(folder, exist_ok=True)
    written = []
    x_max = max(point["events"] for point in points) / 1e6
    x_max = max(1, round(x_max))
    pictures = []
    for series, name in FILES.items():
        of_it = [point for point in points if point["series"] == series]
        lines = {what: [(p["events"] / 1e6, p[field] / 1000) for p in of_it]
                 for what, field in (("time", "ns_per_event"), ("processor time", "cpu_ns_per_event"))}
        picture = Picture(series[0].upper() + series[1:], "million events in the log", "µs an event", x_max,
                          max(y for line in lines.values() for _, y in line))
        picture.line(lines["time"], "#2a7fd4", "time", 1)
        picture.line(lines["processor time"], "#d4812a", "processor time", 0, "5 4")
        pictures.append((name, picture))
    memory = [(p["events"] / 1e6, p["anonymous_mib"]) for p in points]
    picture = Picture("Anonymous memory", "million events in the log", "MiB", x_max, max(y for _, y in memory))
    picture.line(memory, "#2a7fd4", "of the process", 0)
    pictures.append(("memory", picture))
    for name, picture in pictures:
        path = os.path.join(folder, f"{name}.svg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture.text())
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print("\n".join(draw(load(sys.argv[1]), sys.argv[2])))
