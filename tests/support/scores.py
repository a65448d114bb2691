"""Scores as the inference server returns them."""

from math import log

from trainer.config.validation import parse
from trainer.contracts.scores import ScoreResponse
from trainer.reports.surprisal_report import ReportFiles, summarize

Expected = tuple[tuple[str, float], ...]
GUESSES: Expected = (("a", 0.41), ("`", 0.224), ("[EOS]", 0.09))
REPORT_FILES = {f"surprisal.{kind}": kind.encode() for kind in ("png", "html", "csv", "json")}


def report_of(text: str, bits: list[float], unknown: str = "", expected: Expected | None = GUESSES) -> ReportFiles:
    """The report of a text whose characters have these surprisals."""
    score = score_of(text, [value * log(2) for value in bits], unknown=unknown, expected=expected)
    return ReportFiles(summarize(score, text), len(text), REPORT_FILES)


def score_of(text: str, nats: list[float], *, unknown: str = "", expected: Expected | None = None) -> ScoreResponse:
    """The score of a text by a character model: an entry per character that is no line end."""
    places = [place for place, char in enumerate(text) if char != "\n"]
    assert len(nats) == len(places)
    count, tokens = len(nats), tuple("[UNK]" if text[place] in unknown else text[place] for place in places)
    mean, unknowns = sum(nats) / count, sum(text[place] in unknown for place in places)
    zero: dict[str, object] = {"unk_count": 0, "nats": 0.0, "end_nats": 0.0}
    lines: list[dict[str, object]] = []
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        size = len(line)
        sizes = {"n_tokens": size, "n_scored": size, "n_chars": max(1, size), "n_bytes": max(1, size)}
        lines.append({"number": number, "span": (start, start + size), **sizes, **zero})
        start += size + 1
    return parse(
        ScoreResponse,
        {
            **{"request_id": "f", "run_id": "char_lstm-1", "status": "completed", "perplexity": 2.0},
            **{"loss": mean, "mean_surprisal": mean, "bits_per_char": mean / log(2)},
            **{"n_tokens": count, "n_scored": count, "unk_count": unknowns, "unknown_chars": unknowns},
            **{"unknown_char_share": unknowns / count, "surprisal": nats, "rank": (2,) * count},
            **{"entropy": (log(2),) * count, "tokens": tokens, "char_spans": [(place, place + 1) for place in places]},
            **{"topk": None if expected is None else (expected,) * count, "lines": lines},
        },
    )
