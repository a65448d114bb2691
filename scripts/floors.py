"""The floors of the house: which folder may import which, checked by a test and drawn for docs/architecture.md.

python -m scripts.floors docs/floors.svg
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (
    ("bot",),
    ("bot.commands",),
    ("bot.session",),
    ("bot.notifications",),
    ("bot.messages",),
    ("bot.processes",),
    ("bot.people", "bot.rest"),
    ("trainer.http", "trainer.commands"),
    ("trainer.api", "trainer.mcp"),
    ("trainer.export", "trainer.client"),
    ("trainer.worker",),
    ("trainer.worker.children",),
    ("trainer.training",),
    ("trainer.inference",),
    ("trainer.models",),
    ("trainer.tokenizers",),
    ("trainer.lab",),
    ("trainer.queue",),
    ("trainer.batteries", "trainer.reading"),
    ("trainer.services", "trainer.experiments"),
    ("trainer.artifacts",),
    ("trainer.data",),
    ("trainer.store",),
    ("trainer.system", "trainer.native", "trainer.ngrams"),
    ("trainer.config", "trainer.reports"),
    ("trainer.contracts",),
)
"""Rooms from the top floor down. A room imports only from floors below its own."""
ROOMS = frozenset(room for floor in FLOORS for room in floor)
LIGHT = frozenset(room for room in ROOMS if room.startswith("bot")) | frozenset(
    f"trainer.{room}"
    for room in "contracts config system native ngrams store data artifacts batteries reading experiments services"
    " queue client reports lab http mcp commands".split()
)
"""Rooms that import neither torch nor transformers, so that the bot starts quickly and stays small."""
HEAVY = {"torch", "transformers"}
MATPLOTLIB_MODULES = {
    f"trainer.reports.{name}"
    for name in ("charts", "experiment_charts", "report_figures", "development_charts", "fonts")
}
"""Modules that import matplotlib; the bot loads them only in its chart process."""

LEFT = {room for room in ROOMS if room.startswith("bot")} - {"bot.people"} | {
    *("trainer.http", "trainer.lab", "trainer.client", "trainer.queue", "trainer.services", "trainer.store")
}
RIGHT = {"trainer.reports"}
"""Rooms outside the middle column of the picture; those that import torch are on the right too."""

WIDTH, ROOM_WIDTH, ROOM_HEIGHT, GAP, MARGIN = 720, 160, 32, 24, 20
COLUMN_WIDTH = 260
BACKGROUND, LIGHT_FILL, HEAVY_FILL, TEXT, ARROW = "#ffffff", "#dbeafe", "#fde68a", "#1f2937", "#9ca3af"


def room_of(module: str) -> str | None:
    """Return the room of a module, or None for a module of another package or of `trainer` itself."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ROOMS), None)


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full module name of each import in a file; imports inside functions count too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def faults() -> list[str]:
    """Return each import that goes up or sideways, or that brings a heavy library into a light room."""
    height = {room: -number for number, floor in enumerate(FLOORS) for room in floor}
    found: list[str] = []
    for file, module, room in product_modules():
        for line, imported in imports(file):
            target = room_of(imported)
            place = f"{module}:{line} imports {imported}"
            library = imported.split(".")[0]
            if target not in (None, room) and height[target or room] >= height[room]:
                found.append(f"{place}: {target} is not below {room}")
            if library == "discord" and not room.startswith("bot"):
                found.append(f"{place}: only bot imports discord")
            if room in LIGHT and library in HEAVY:
                found.append(f"{place}: {room} imports no {library}")
            if library == "matplotlib" and module not in MATPLOTLIB_MODULES:
                found.append(f"{place}: only {', '.join(MATPLOTLIB_MODULES)} imports matplotlib")
            if room in LIGHT - {"trainer.commands"} and target not in (None, *(LIGHT - {"trainer.commands"})):
                found.append(f"{place}: {room} imports no {target}")
    return found


def circle() -> str:
    """Return modules of the product that import each other in a circle; empty if there are none."""
    modules = {module: file for file, module, _ in product_modules()}
    graph = {
        module: {name for _, found in imports(file) for name in (found, found.rpartition(".")[0]) if name in modules}
        for module, file in modules.items()
    }
    try:
        TopologicalSorter({module: below - {module} for module, below in graph.items()}).prepare()
    except CycleError as error:
        return str(error)
    return ""


def product_modules() -> Iterator[tuple[Path, str, str]]:
    """Yield file, module name and room of every module of the product."""
    for folder in ("bot", "trainer"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            room = room_of(module)
            if room is not None:
                yield file, module, room


def arrows() -> dict[str, set[str]]:
    """Return the rooms that each room imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for file, _, room in product_modules():
        found[room] |= {target for _, imported in imports(file) if (target := room_of(imported)) not in (None, room)}
    return found


def drawing() -> str:
    """Return an SVG picture: one row per floor, an arrow from each room to the rooms that it imports from.

    An arrow that another path already implies is left out.
    """
    positions: dict[str, tuple[int, int]] = {}
    for number, floor in enumerate(FLOORS):
        for room in floor:
            column = 0 if room in LEFT else 1 if room in LIGHT - RIGHT else 2
            positions[room] = (MARGIN + column * COLUMN_WIDTH, MARGIN + number * (ROOM_HEIGHT + GAP))
    height = 2 * MARGIN + len(FLOORS) * (ROOM_HEIGHT + GAP)
    found = arrows()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{ARROW}"/></marker></defs>',
    ]
    for room, targets in sorted(found.items()):
        for target in sorted(targets - {below for via in targets for below in _reachable(via, found)}):
            x, y = positions[room]
            end_x, end_y = positions[target]
            parts.append(
                f'<path d="M{x + ROOM_WIDTH // 2} {y + ROOM_HEIGHT}L{end_x + ROOM_WIDTH // 2} {end_y - 2}"'
                f' stroke="{ARROW}" stroke-width="1.5" fill="none" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in positions.items():
        fill = LIGHT_FILL if room in LIGHT else HEAVY_FILL
        parts.append(f'<rect x="{x}" y="{y}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}" rx="6" fill="{fill}"/>')
        middle = f'x="{x + ROOM_WIDTH // 2}" y="{y + ROOM_HEIGHT // 2 + 5}"'
        parts.append(f'<text {middle} text-anchor="middle" font-size="14" fill="{TEXT}">{escape(room)}/</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _reachable(room: str, found: dict[str, set[str]]) -> set[str]:
    direct = found.get(room, set())
    return direct | {far for near in direct for far in _reachable(near, found)}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing(), encoding="utf-8")
