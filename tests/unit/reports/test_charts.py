"""The loss chart and the heat map: pictures of the right size whatever is in them, and honest about the numbers."""

import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from itertools import combinations
from math import log
from pathlib import Path
from struct import unpack

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from tests.support import ROOT
from tests.support.stories import Story, run_record
from trainer.contracts.runs import RunStatus, SplitSizes
from trainer.contracts.units import Unit
from trainer.reports.charts import (
    comparison_chart,
    group_figure,
    heat_map,
    loss_figure,
    smoothed,
)
from trainer.reports.fonts import save_figure
from trainer.reports.score_table import Cell, CellRow, Curve

CURVES: dict[str, tuple[Curve, Curve]] = {
    "nothing": ([], []),
    "one point": ([(10, 3.0)], []),
    "equal losses": ([(10, 3.0), (20, 3.0)], [(20, 3.0)]),
    "validation only": ([], [(10, 3.0)]),
    "more points than pixels": ([(step, 3.0 + 1 / step) for step in range(1, 5000)], [(4000, 3.1)]),
}
LOSSES: tuple[Curve, Curve] = [(1, 3.0), (2, 2.1)], [(2, 2.0)]


def png_of(figure: Figure) -> bytes:
    return save_figure(figure, "png")


def size_of(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    size: tuple[int, int] = unpack(">II", png[16:24])
    return size


@pytest.mark.parametrize("name", CURVES)
def test_chart__is_a_png_of_800_by_400(name: str) -> None:
    assert size_of(png_of(loss_figure(*CURVES[name], "bits"))) == (800, 400)


def test_chart__of_equal_numbers_is_equal() -> None:
    first, same, other = (png_of(loss_figure([(1, 2.0), (2, last)], [], "bits")) for last in (1.0, 1.0, 1.5))
    assert first == same != other


@pytest.mark.parametrize("points", [1, 2, 49])
def test_chart__of_a_short_run_shows_its_highest_loss(points: int) -> None:
    losses = [5.0] + [1.0 + 1 / step for step in range(1, points)]
    drawn = curve_rows(pixels(png_of(loss_figure([*enumerate(losses)], [], "bits")))[:, :450])  # left of the legend
    assert drawn, "nothing is to be seen"
    assert points == 1 or drawn[0] < 80, "the highest point is near the top"


def test_chart__of_a_long_run_lets_its_first_fall_run_out_of_the_picture() -> None:
    tall = [(step, 50.0 if step == 0 else 1.0 + step % 2) for step in range(50)]
    flat = [(step, 2.0 if step == 0 else loss) for step, loss in tall]

    def height(curve: Curve) -> int:
        drawn = curve_rows(pixels(png_of(loss_figure(curve, [], "bits")))[:, 300:500])
        return drawn[-1] - drawn[0]

    assert height(tall) > 0.9 * height(flat)


@pytest.mark.parametrize(("unit", "nats"), [("bits", log(2)), ("nats", 1.0)])
def test_axes_of_losses__have_one_unit(tmp_path: Path, unit: Unit, nats: float) -> None:
    validation = SplitSizes(lines=1, chars=300, tokens=100)
    status = status_with(tmp_path, validation.bits_per_char(2.0, "causal_lm"))
    train, valid = LOSSES
    figures = [
        loss_figure(train, valid, unit, status.bits_per_nat),
        group_figure([train], [valid], unit, status.bits_per_nat),
    ]
    for figure in figures:
        axes, *others = figure.axes
        assert losses_of(axes.lines[0]) == pytest.approx([3.0 / nats, 2.1 / nats])
        assert losses_of(axes.lines[-1]) == pytest.approx([2.0 / nats])
        assert axes.get_ylabel() == f"loss ({unit} per token)"
        bottom, top = axes.get_ylim()
        assert bottom < 2.0 / nats < top
        for second in others:  # 100 tokens over 300 characters; linear, so that its two ends tell all of it
            assert second.get_ylim() == pytest.approx((bottom / 3, top / 3))
            assert second.get_ylabel() == f"{unit} per character (validation)"
    assert [len(figure.axes) for figure in figures] == [2, 2]


@pytest.mark.parametrize("counted", [1.5, 2.5, 4.0])
def test_loss_of_counting__is_a_line_within_the_picture(counted: float) -> None:
    figure = loss_figure(*LOSSES, "bits", counted=counted)
    axes, line = figure.axes[0], figure.axes[0].lines[-1]
    bottom, top = axes.get_ylim()
    assert losses_of(line) == pytest.approx([counted / log(2)] * 2) and bottom < counted / log(2) < top
    assert line.get_label() == "n-gram (validation)"


def test_second_axis__is_for_causal_models_with_a_validation_only(tmp_path: Path) -> None:
    validation = SplitSizes(lines=1, chars=300, tokens=100)
    masked = status_with(tmp_path / "masked", validation.bits_per_char(2.0, "masked_lm"))
    unmeasured = Story(tmp_path / "unmeasured", run_record()).step(1, 3.0).follower().status
    assert masked.best_val_loss == 2.0
    for status in (masked, unmeasured):
        assert len(loss_figure(*LOSSES, "bits", status.bits_per_nat).axes) == 1


def losses_of(line: Line2D) -> list[float]:
    values: list[float] = torch.as_tensor(line.get_ydata()).tolist()
    return values


def status_with(folder: Path, bits_per_char: float | None) -> RunStatus:
    """Return the status of a run whose best validation loss is 2 nats per token."""
    status = Story(folder, run_record()).step(1, 3.0, val_loss=2.0).follower().status
    changes: dict[str, object] = {"best_val_bits_per_char": bits_per_char}
    return status.model_copy(update=changes)


def curve_rows(picture: Tensor) -> list[int]:
    """Return the rows of pixels in which the training curve is seen: it is blue."""
    return places((picture[..., 2] - picture[..., 0] > 0.3).any(dim=1))


def places(of: Tensor) -> list[int]:
    """Return the indices of the true values of a vector."""
    found: list[int] = of.nonzero().flatten().tolist()
    return found


@pytest.mark.process
def test_chart_of_a_comparison__has_a_colour_and_a_line_style_per_run() -> None:
    line: Curve = [(step, 2.0) for step in range(100)]
    names = ("a: $x$ $", "b: _ мәтін", "c: ^{x}", "d: \u202e")
    pictures = [pixels(comparison_chart({name: line} | {"rest": []}, "bits/char")) for name in names]
    four = comparison_chart({name: [(1, 3.0), (2, 2.0 + i)] for i, name in enumerate(names)}, "nats/token")
    assert size_of(four) == (800, 400)
    alone = curve_rows(pictures[0][:, 300:500])
    assert all(curve_rows(picture[:, 300:500]) == alone for picture in pictures)  # the first colour, whatever the name
    styles = [{**{str(i): [] for i in range(number)}, "x": line} for number in range(4)]
    drawn = [pixels(comparison_chart(curves, "nats/token"))[150:250, 100:500] for curves in styles]
    coloured = [int((picture[..., :3].amax(dim=2) - picture[..., :3].amin(dim=2) > 0.2).sum()) for picture in drawn]
    assert coloured[0] == max(coloured) and len(set(coloured)) == 4  # a full line, and three with gaps


def test_chart_of_a_group__shows_the_mean_of_its_runs_in_a_band() -> None:
    runs: list[Curve] = [[(1, 3.0), (50, 2.0), (100, low)] for low in (1.0, 1.6, 1.3)]
    png = png_of(group_figure(runs, [[(100, 1.5)], [(100, 1.2)], []], "bits", 1.4))
    assert size_of(png) == (800, 400)
    same = png_of(group_figure([runs[2]] * 3, [], "bits"))
    band, line = (count_blue(pixels(one)) for one in (png, same))
    assert band > 3 * line, "a band, where equal runs have only a line"


def count_blue(picture: Tensor) -> int:
    """Return the number of bluish points in the picture."""
    return int((picture[..., 2] > picture[..., 0] + 0.1).sum())


def test_smoothed__takes_noise_away_and_keeps_lines_and_few_losses() -> None:
    line = [float(value) for value in range(200)]
    assert smoothed(line) == pytest.approx(line)
    noisy = [1.5 - index % 2 for index in range(200)]
    assert all(abs(value - 1.0) < 0.1 for value in smoothed(noisy)[20:-20])
    assert (smoothed([3.0, 1.0, 2.0]), smoothed([])) == ([3.0, 1.0, 2.0], [])


SCRIPTS = "Қазақ ғұңһ ɡʷɔ̃ŋ tʰɑːqʃɪ œ̝ ئۇيغۇر 日本 😀 $_^ \u200d\t\u00a0\u0001\U0010ffff"


def cells(text: str, value: float = 1.0) -> list[Cell]:
    return [(f"◌{char}" if char in "\u0303\u031d" else char, value, True) for char in text]


def pixels(png: bytes) -> Tensor:
    """Return the rows of pixels, each red, green, blue and opacity from 0 to 1."""
    image: NDArray[np.float32] = imread(BytesIO(png), format="png")
    return torch.tensor(image)


def lightness(picture: Tensor, columns: Sequence[int]) -> list[float]:
    """Return the lightness of the first row of cells at some columns of pixels."""
    light: list[float] = picture[24, columns, :3].sum(dim=1).tolist()
    return light


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize(("columns", "width"), [(1, 796), (40, 1276)])
def test_heat_map__is_as_large_as_its_rows_with_room_for_the_legend(unit: Unit, columns: int, width: int) -> None:
    rows: list[CellRow] = [(1, cells("a" * columns)), (41, cells("b"))]
    assert size_of(heat_map(rows, unit)) == (width, 2 * 38 + 98)


@pytest.mark.process
def test_heat_map__draws_every_script_with_a_sign_or_a_code_point(recwarn: pytest.WarningsRecorder) -> None:
    signs = sorted(set(cells(SCRIPTS)))
    picture = pixels(heat_map([(1, [*signs, signs[0]])], "bits"))
    first, *others, last = (picture[14:52, 62 + 30 * x : 92 + 30 * x] for x in range(len(signs) + 1))
    assert first.equal(last)
    assert not any(one.equal(other) for one, other in combinations([first, *others], 2))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(("unit", "end"), [("bits", 8.0), ("nats", 5.5)])
def test_heat_map__is_lighter_where_it_is_more_surprising_up_to_the_end(unit: Unit, end: float) -> None:
    values = [0.0, end / 4, end / 2, end * 3 / 4, end, end * 3]
    picture = pixels(heat_map([(1, [(" ", value, True) for value in values])], unit))
    light = lightness(picture, [62 + 30 * x + 15 for x in range(len(values))])
    assert light[:5] == sorted(set(light[:5]))
    assert light[5] == light[4]


@pytest.mark.parametrize(("text", "first", "second"), [("ab", 0, 1), ("1 ئ", 23, 22), ("ب1", 23, 22), ("␣", 0, 0)])
def test_heat_map__begins_a_row_where_its_script_begins(text: str, first: int, second: int) -> None:
    values = (8.0, 4.0, 0.0)
    picture = pixels(heat_map([(1, [(sign, value, True) for sign, value in zip(text, values, strict=False)])], "bits"))
    light = lightness(picture, [62 + 30 * x + 3 for x in range(24)])
    assert light[first] == max(light)
    if first != second:
        assert light[second] == sorted(light)[-2]


def test_heat_map__frames_unknown_characters_and_explains_the_frame() -> None:
    known = pixels(heat_map([(1, [("a", 1.0, True), ("b", 1.0, True)])], "bits"))
    unknown = pixels(heat_map([(1, [("a", 1.0, True), ("b", 1.0, False)])], "bits"))
    differs = (known != unknown).any(dim=2)
    in_cells, below = places(differs[:52].any(dim=0)), places(differs[52:].any(dim=0))
    assert 62 + 30 <= min(in_cells) and max(in_cells) <= 62 + 61  # the second cell and its edge
    assert min(below) > 62 + 360  # beside the colour bar


def test_heat_map__writes_a_letter_with_its_marks_over_the_cells_of_its_characters() -> None:
    apart: list[Cell] = [("o", 1.0, True), ("◌\u0303", 7.0, True), ("a", 1.0, True)]
    together: list[Cell] = [("o\u0303", 1.0, True), ("", 7.0, True), ("a", 1.0, True)]
    plain: list[Cell] = [("␣", 1.0, True), ("␣", 7.0, True), ("a", 1.0, True)]
    one, two, empty = (pixels(heat_map([(1, row)], "bits")) for row in (apart, together, plain))
    corners = [62 + 3, 62 + 33, 62 + 63]
    assert one[18, corners].equal(two[18, corners]), "each character has its own colour"
    assert (two != empty)[14:52, 62 + 26 : 62 + 34].any(), "the letter stands in the middle"
    assert not (one != empty)[14:52, 62 + 27 : 62 + 33].any()


FONT = """
import sys
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
signs = {"g" + str(number): ord(char) for number, char in enumerate(sys.argv[2])}
pen = TTGlyphPen(None)
pen.moveTo((100, 0)); pen.lineTo((100, 700)); pen.lineTo((800, 700)); pen.lineTo((800, 0)); pen.closePath()
glyph = pen.glyph()
names = [".notdef", *signs]
font = FontBuilder(1000, isTTF=True)
font.setupGlyphOrder(names)
font.setupCharacterMap({number: name for name, number in signs.items()})
font.setupGlyf({name: glyph for name in names})
font.setupHorizontalMetrics({name: (900, 100) for name in names})
font.setupHorizontalHeader(ascent=800, descent=-200)
font.setupNameTable({"familyName": "Tiny Squares", "styleName": "Regular"})
font.setupOS2()
font.setupPost()
font.save(sys.argv[1])
"""
DRAW = """
import logging, sys
from pathlib import Path
log = logging.getLogger("matplotlib.font_manager")
log.setLevel(logging.ERROR)  # where its list of fonts takes more than five seconds, matplotlib warns of that
from matplotlib import font_manager
log.setLevel(logging.NOTSET)
folder, signs, name = sys.argv[1:]
fonts = font_manager.fontManager.ttflist
fonts[:] = [font for font in fonts if font.name == "DejaVu Sans" and "mpl-data" in font.fname]
font_manager.X11FontDirectories[:] = [folder]
font_manager.OSXFontDirectories[:] = [folder]
from trainer.reports.charts import comparison_chart, heat_map, missing_fonts
rows = [(1, [(sign, 0.0, True) for sign in signs])]
Path(folder, "map.png").write_bytes(heat_map(rows, "bits"))
Path(folder, "chart.png").write_bytes(comparison_chart({name: [(1, 2.0), (2, 1.0)]}, "nats"))
print(missing_fonts(rows))
"""


def drawn_with(folder: Path, signs: str, font_of: str) -> tuple[Tensor, Tensor, str]:
    """Draw a heat map and a legend of signs where the only fonts are matplotlib's own and one of some signs."""
    folder.mkdir()
    (folder / "broken.ttf").write_bytes(b"not a font")
    if font_of:
        subprocess.run([sys.executable, "-c", FONT, str(folder / "tiny.ttf"), font_of], check=True)
    environment = {"MPLCONFIGDIR": str(folder), "PATH": "", "XDG_DATA_HOME": str(folder), "HOME": str(folder)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    command = [sys.executable, "-W", "error", "-c", DRAW, str(folder), signs, f"a {signs}"]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    heat, chart = (pixels((folder / f"{name}.png").read_bytes()) for name in ("map", "chart"))
    return heat, chart, done.stdout.strip()


@pytest.mark.slow
@pytest.mark.process
def test_picture__takes_the_first_font_that_has_a_sign_and_says_which_to_install(tmp_path: Path) -> None:
    signs = "हन中"
    squares, chart, note = drawn_with(tmp_path / "with", signs, signs)
    assert note == "None"
    for x in range(3):
        cell = squares[20:40, 62 + 30 * x + 8 : 62 + 30 * x + 22, :3]
        assert int((cell > 0.9).all(dim=-1).sum()) > 100, "a white square"
    codes, boxes, note = drawn_with(tmp_path / "without", signs, "")
    assert note == (
        "No font of this machine has 3 signs of this picture: install one (on Debian and Ubuntu fonts-noto-cjk and"
        " fonts-noto-core)."
    )
    assert codes.shape[0] > squares.shape[0] and not chart.equal(boxes)
    _, _, note = drawn_with(tmp_path / "some", signs, "中")
    assert note == (
        "No font of this machine has 2 signs of this picture: install one (on Debian and Ubuntu fonts-noto-core)."
    )
