"""Scores as the inference server returns them."""

from math import log

from trainer.contracts.inference import LineScore, ScoreResponse
from trainer.reports.surprisal_report import ReportFiles, summarize

Expected = tuple[tuple[str, float], ...]
GUESSES: Expected = (("a", 0.41), ("`", 0.224), ("[EOS]", 0.09))
REPORT_FILES = {f"surprisal.{kind}": kind.encode() for kind in ("png", "html", "csv", "json")}


def report_of(text: str, bits: list[float], unknown: str = "", expected: Expected | None = GUESSES) -> ReportFiles:
    """The report of a text whose characters have these surprisals."""
    score = score_of(text, [value * log(2) for value in bits], unknown=unknown, expected=expected)
    return ReportFiles(summarize(score, text, "bits"), len(text), REPORT_FILES)


def score_of(text: str, nats: list[float], *, unknown: str = "", expected: Expected | None = None) -> ScoreResponse:
    """The score of a text by a character model: an entry per character that is no line end."""
    places = [place for place, char in enumerate(text) if char != "\n"]
    assert len(nats) == len(places)
    lines = [(1 + text.count("\n", 0, start), start, line) for start, line in _lines(text)]
    return ScoreResponse(
        request_id="f",
        run_id="char_lstm-1",
        status="completed",
        loss=sum(nats) / len(nats),
        mean_surprisal=sum(nats) / len(nats),
        perplexity=2.0,
        bits_per_char=sum(nats) / len(nats) / log(2),
        n_tokens=len(nats),
        n_scored=len(nats),
        unk_count=sum(text[place] in unknown for place in places),
        unknown_chars=sum(text[place] in unknown for place in places),
        unknown_char_share=sum(text[place] in unknown for place in places) / len(places),
        surprisal=tuple(nats),
        rank=(2,) * len(nats),
        entropy=(log(2),) * len(nats),
        tokens=tuple("[UNK]" if text[place] in unknown else text[place] for place in places),
        char_spans=tuple((place, place + 1) for place in places),
        topk=None if expected is None else (expected,) * len(nats),
        lines=tuple(
            LineScore(
                number=number,
                span=(start, start + len(line)),
                n_tokens=len(line),
                n_scored=len(line),
                unk_count=0,
                nats=0.0,
                end_nats=0.0,
                n_chars=max(1, len(line)),
                n_bytes=max(1, len(line)),
            )
            for number, start, line in lines
        ),
    )


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines of a text with their starts; blank ones too."""
    lines = text.split("\n")
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    return list(zip(starts, lines, strict=True))
