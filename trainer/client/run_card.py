"""A run as a card in a notebook: state, progress, losses and curves, which follow the run while it trains."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pkgutil import resolve_name
from typing import NamedTuple, Protocol

from pydantic import BaseModel

from trainer.contracts.errors import AppError
from trainer.contracts.runs import RunStatus
from trainer.reports.report_html import report_body
from trainer.reports.report_text import Reader, plain_lines
from trainer.reports.run_report import card_fields, end_report

_WIDTH, _HEIGHT, _MARGIN = 320, 96, 4
_UPDATE_SECONDS = 2.0
_READER = Reader("bits")
_COLORS = {"training": "#2563eb", "validation": "#d97706"}
"""Colours of the curves, which have contrast on white and on black."""

Points = Sequence[tuple[int, float]]
Bundle = Mapping[str, str]
"""A card by media types."""


class LossCurves(BaseModel):
    """Losses of a run in nats per token, as pairs of step and loss; other curves of the answer are left out."""

    train: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]


class RunSnapshot(NamedTuple):
    """A run at one moment."""

    status: RunStatus
    curves: LossCurves


class _Display(Protocol):
    """An output of a notebook that can be replaced."""

    def update(self, bundle: Bundle, *, raw: bool) -> None: ...


class _Show(Protocol):
    """`IPython.display.display`."""

    def __call__(self, bundle: Bundle, *, raw: bool, display_id: bool) -> _Display: ...


class RunCard:
    """A run of a server in a notebook; `read` returns it at its end, or after the given number of seconds."""

    def __init__(self, run_id: str, read: Callable[[float], RunSnapshot]) -> None:
        self.run_id = run_id
        self._read = read
        self._snapshot = read(0.0)

    @property
    def status(self) -> RunStatus:
        """The status that the card shows."""
        return self._snapshot.status

    def __repr__(self) -> str:
        return _as_text(self.status)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Return the card for programs that show objects, such as notebooks."""
        return _bundle(self._snapshot)

    def _ipython_display_(self) -> threading.Thread:
        """Show the card in a notebook, and update it in a thread until the run has ended; return the thread."""
        show: _Show = resolve_name("IPython.display:display")
        display = show(_bundle(self._snapshot), raw=True, display_id=True)
        updating = threading.Thread(target=self.follow, args=(display,), name="mt-card", daemon=True)
        updating.start()
        return updating

    def follow(self, display: _Display) -> None:
        """Update a display until the run has ended, or the server no longer answers."""
        while not self.status.has_ended:
            try:
                self._snapshot = self._read(_UPDATE_SECONDS)
            except AppError as error:
                display.update(_bundle(self._snapshot, f"Not updated any more: {error.message}"), raw=True)
                return
            display.update(_bundle(self._snapshot), raw=True)


def _bundle(snapshot: RunSnapshot, note: str = "") -> Bundle:
    text = _as_text(snapshot.status)
    return {"text/plain": f"{text}\n{note}" if note else text, "text/html": _as_html(snapshot, note)}


def _as_text(status: RunStatus) -> str:
    state, *others = plain_lines(end_report(status), _READER)
    return "\n".join([state, _progress(status), *others])


def _progress(status: RunStatus) -> str:
    epoch = f"epoch {status.epoch} of {status.total_epochs}, step {status.step:,}"
    return f"{status.progress:.0f} % · {epoch} · {status.message}"


def _as_html(snapshot: RunSnapshot, note: str) -> str:
    status = snapshot.status
    running = () if status.has_ended else card_fields(status)
    figures = " · ".join(f"{_READER.note(title)} {_READER.cell(cell, column)}" for title, cell, column in running)
    lines = [_progress(status), figures, *([note] if note else [])]
    return (
        "<div style='font-family:system-ui,sans-serif;max-width:40em'>"
        f"<div><strong>{escape(status.label or status.run_id)}</strong></div>"
        f"<progress max='100' value='{status.progress:.1f}' aria-label='progress'></progress>"
        f"{''.join(f'<div>{escape(line)}</div>' for line in lines)}"
        f"{report_body(end_report(status), {}, _READER)}"
        f"{''.join(_chart(snapshot.curves))}"
        "</div>"
    )


def _chart(curves: LossCurves) -> Iterator[str]:
    """Yield the parts of an SVG picture of the losses over the steps; nothing before the first two points."""
    lines = {name: _finite(points) for name, points in (("training", curves.train), ("validation", curves.validation))}
    points = [point for line in lines.values() for point in line]
    steps, losses = {step for step, _ in points}, {loss for _, loss in points}
    if len(steps) < 2:
        return
    first, low = min(steps), min(losses)
    x_scale = (_WIDTH - 2 * _MARGIN) / (max(steps) - first)
    y_scale = (_HEIGHT - 2 * _MARGIN) / (max(losses) - low or 1.0)
    ends = " and ".join(_READER.number(loss, "loss") for loss in (low, max(losses)))
    label = f"losses from step {first:,} to {max(steps):,}, between {ends} {_READER.unit} per token"
    yield f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' role='img' aria-label='{label}'>"
    for name, line in lines.items():
        path = " ".join(
            f"{_MARGIN + (step - first) * x_scale:.1f},{_HEIGHT - _MARGIN - (loss - low) * y_scale:.1f}"
            for step, loss in line
        )
        yield f"<polyline points='{path}' fill='none' stroke='{_COLORS[name]}' stroke-width='1.5'/>"
    yield "</svg><div>"
    yield " ".join(f"<span style='color:{color}'>{name}</span>" for name, color in _COLORS.items())
    yield "</div>"


def _finite(points: Points) -> list[tuple[int, float]]:
    """Return the points that can be drawn."""
    return [(step, loss) for step, loss in points if abs(loss) < float("inf")]
