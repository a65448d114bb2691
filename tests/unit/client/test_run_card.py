"""The card of a run in a notebook."""

import sys
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.support.baselines import MOSTLY_UNKNOWN, WORSE, WORSE_LINE, WORSE_WARNING
from trainer.client.run_card import Bundle, LossCurves, RunCard, RunSnapshot
from trainer.config.validation import parse
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunStatus
from trainer.reports.report_text import Reader, plain_lines, rows_of
from trainer.reports.run_report import run_report

RUN = "char_lstm-20261126-0123abcd"
HOSTILE = '<script>alert(1)</script> & "a\'b"'
CURVES = LossCurves(train=((0, 4.0), (50, 3.0), (100, 2.0)), validation=((100, 2.5),))


def status(**fields: object) -> RunStatus:
    known: dict[str, object] = {"run_id": RUN, "status": "running", "reachable": True, "message": "Epoch 2 of 4."}
    known |= {"progress": 25.0, "epoch": 2, "total_epochs": 4, "step": 100, "created_at": "2026-11-26T10:00:00Z"}
    known |= {
        "model_family": "char_lstm",
        "attempt": 1,
        "train_loss": 2.0,
        "val_loss": 2.5,
        "tokens_per_second": 1234.5,
    }
    return parse(RunStatus, known | fields)


def card(curves: LossCurves = CURVES, **fields: object) -> RunCard:
    return RunCard(RUN, lambda wait: RunSnapshot(status(**fields), curves))


def html(bundle: Bundle) -> ElementTree.Element:
    """The card as a browser reads it; a parser of XML refuses a tag or an attribute that is not closed."""
    return ElementTree.fromstring(bundle["text/html"])  # noqa: S314  made by the card


def test_card__has_state_progress_losses_and_curves() -> None:
    shown = card(label="my run")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == repr(shown)
    lines = bundle["text/plain"].splitlines()
    assert lines[:2] == [f"my run ({RUN}): running", "25 % · epoch 2 of 4, step 100 · Epoch 2 of 4."]
    assert [line.split() for line in lines[-2:]] == [["Training", "2.885", "7.39"], ["Validation", "3.607", "12.18"]]
    page = html(bundle)
    [progress] = page.iter("progress")
    assert (progress.get("value"), progress.get("max")) == ("25.0", "100")
    said = "".join(page.itertext())
    assert "my run" in said and lines[1] in said and "Tokens/s 1,234" in said and "3.607" in said
    train, validation = (line.get("points") for line in page.iter("polyline"))
    # 312 x 88 within a margin of 4: steps 0 to 100 from left to right, losses 2 to 4 from bottom to top
    assert (train, validation) == ("4.0,4.0 160.0,48.0 316.0,92.0", "316.0,70.0")


@pytest.mark.parametrize(
    ("share", "baseline", "rows"),
    [
        (0.001, WORSE, [["Training", "2.885", "4.000", "7.39"], ["Test", "1.443", "1.500", "2.72"]]),
        (
            0.5,
            WORSE,
            [["Training", "2.885 (!)", "4.000 (!)", "7.39 (!)"], ["Test", "1.443 (!)", "1.500 (!)", "2.72 (!)"]],
        ),
        (
            0.5,
            MOSTLY_UNKNOWN,
            [["Training", "2.885 (!)", "–"], ["Test", "1.443 (!)", "–"], ["Test, known tokens", "4.000", "16.00"]],
        ),
    ],
    ids=["known", "of an earlier version", "unknown"],
)
def test_unknown_tokens__mark_all_losses_of_a_run(share: float, baseline: Baseline, rows: list[list[str]]) -> None:
    figures: dict[str, object] = {"train_bits_per_char": 4.0, "val_loss": None, "test_loss": 1.0, "bits_per_char": 1.5}
    run = status(status="completed", unknown_char_share=share, baseline=baseline, **figures)
    [losses] = [table for table in run_report(run).tables() if table.name == "losses"]
    assert rows_of(losses, Reader("bits"))[1:] == rows
    validated = run_report(status(unknown_char_share=share, baseline=MOSTLY_UNKNOWN, best_val_loss=1.0))
    assert ("Best validation, known tokens" in "".join(plain_lines(validated))) == (share == 0.5)


def test_card__compares_a_completed_run_with_counting() -> None:
    bundle = card(status="completed", baseline=WORSE, warnings=WORSE.warnings())._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[-2:] == [WORSE_LINE, f"Warning: {WORSE_WARNING}".removesuffix(".")]
    said = "".join(html(bundle).itertext())
    assert WORSE_LINE in said and WORSE_WARNING in said


def test_card__writes_every_text_as_text() -> None:
    bundle = card(label=HOSTILE, message=HOSTILE, warnings=[HOSTILE], notes=[HOSTILE])._repr_mimebundle_()
    page = html(bundle)
    assert "".join(page.itertext()).count(HOSTILE) == 5
    assert [one for one in page.iter() if one.tag == "script"] == []
    assert HOSTILE in bundle["text/plain"]


def test_card__of_a_run_without_numbers() -> None:
    losses: dict[str, object] = {"train_loss": None, "val_loss": None, "tokens_per_second": None}
    for points in ((), ((1, 3.0),), ((1, float("nan")), (2, float("inf")), (3, 1.0))):
        bundle = card(LossCurves(train=points, validation=()), status="queued", **losses)._repr_mimebundle_()
        assert bundle["text/plain"] == f"{RUN}: queued\n25 % · epoch 2 of 4, step 100 · Epoch 2 of 4."
        assert [*html(bundle).iter("svg")] == []
    level = LossCurves(train=((1, 3.0), (2, 3.0)), validation=())
    assert len([*html(card(level)._repr_mimebundle_()).iter("polyline")]) == 2


class _Notebook:
    """The outputs of a notebook for a card: the first one, then its updates."""

    def __init__(self) -> None:
        self.outputs: list[Bundle] = []

    def display(self, bundle: Bundle, *, raw: bool, display_id: bool) -> "_Notebook":
        assert raw and display_id
        self.outputs.append(bundle)
        return self

    def update(self, bundle: Bundle, *, raw: bool) -> None:
        assert raw
        self.outputs.append(bundle)

    def states(self) -> list[str]:
        return [one["text/plain"].split(": ")[1].split("\n")[0] for one in self.outputs]


class _Package(ModuleType):
    """The package IPython with its function `display`."""

    def __init__(self, notebook: _Notebook) -> None:
        super().__init__("IPython.display")
        self.display = notebook.display


def test_card__follows_the_run_in_a_notebook_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, waits = _Notebook(), list[float]()
    states = iter(["queued", "running", "completed"])

    def read(wait: float) -> RunSnapshot:
        waits.append(wait)
        return RunSnapshot(status(status=next(states)), CURVES)

    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", _Package(notebook))
    shown = RunCard(RUN, read)
    updating = shown._ipython_display_()
    updating.join(60)
    assert notebook.states() == ["queued", "running", "completed"] and shown.status.status == "completed"
    assert waits[0] == 0 and min(waits[1:]) > 0


def test_card__says_when_the_server_no_longer_answers() -> None:
    notebook, first = _Notebook(), iter([RunSnapshot(status(), CURVES)])

    def read(wait: float) -> RunSnapshot:
        for snapshot in first:
            return snapshot
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "No server answers at <lab>.")

    RunCard(RUN, read).follow(notebook)
    [last] = notebook.outputs
    note = "Not updated any more: No server answers at <lab>."
    assert last["text/plain"].endswith(note) and note in "".join(html(last).itertext())
