"""Requests for the scores of the units of a table, and the scores of the units from answers."""

from trainer.contracts.base import changed
from trainer.contracts.readings import ReadingOptions
from trainer.contracts.sequences import SequenceBound, SequenceScore, SequencesResponse
from trainer.data.rows import TextFile
from trainer.reading.scoring import portions, scores_of
from trainer.reading.tables import Times, read_times

RUNNING = "Once upon a time, there was a sea."


WORDS = ("upon", "time", "there", "sea")


def times() -> Times:
    """A table of one text, of whose running text some words have no rows."""
    rows = [f'1,{place},{word},300,"{RUNNING}"' for place, word in enumerate(WORDS)]
    header = "text,position,word,rt,running_text"
    return read_times(TextFile("times.csv", "\n".join([header, *rows]).encode()), ReadingOptions())


def of_parts(n_parts: int, *, is_cut: bool) -> SequenceScore:
    """The score of a sequence whose parts have as many nats as their numbers."""
    return SequenceScore(
        part_nats=tuple(map(float, range(n_parts))),
        part_entropies=(10.0,) * n_parts,
        nats=1.0,
        n_tokens=n_parts,
        n_chars=1,
        n_bytes=1,
        unk_count=0,
        is_cut=is_cut,
    )


def test_units__have_the_scores_of_their_own_parts_of_the_running_text() -> None:
    [portion] = portions(times(), "canonical")
    [sequence], [places] = portion.request.sequences, portion.units
    assert sequence.context + "".join(sequence.parts) == RUNNING[: len(sequence.text)]
    assert [sequence.parts[part].strip() for part in places] == [*WORDS]
    n_parts = len(sequence.parts)
    entropies = [None if part.strip() == "there" else 10.0 + number for number, part in enumerate(sequence.parts)]
    score = changed(of_parts(n_parts, is_cut=True), part_entropies=tuple(entropies), unk_count=2)
    answer = SequencesResponse(request_id="r", run_id="run", status="completed", scores=(score,))
    found = scores_of(4, [portion], [answer])
    own = [next(part for part, unit in places.items() if unit == number) for number in range(4)]
    expected = [(float(part), 10.0 + part) for part in own]
    expected_or_none = [None if number == 2 else pair for number, pair in enumerate(expected)]
    pairs = zip(found.surprisal_nats, found.entropy_nats, strict=True)
    assert [None if nats is None else (nats, entropy) for nats, entropy in pairs] == expected_or_none
    assert (found.n_cut, found.n_unknown, found.bound_nats) == (1, 2, None)
    bounds = (SequenceBound(nats=0.5, part_nats=(0.25,) * n_parts),)
    marginal = scores_of(4, [portion], [changed(answer, bounds=bounds)])
    assert marginal.surprisal_nats == tuple(float(part) for part in own), "a part within a token has one over all"
    assert [number for number, entropy in enumerate(marginal.entropy_nats) if entropy is None] == [2]
    assert marginal.bound_nats == 0.25


def test_long_text__is_cut_once() -> None:
    rows = [f"{text},{place},w{place},300" for text, n_words in (("1", 900), ("2", 3)) for place in range(n_words)]
    table = "\n".join(["text,position,word,rt", *rows]).encode()
    asked = [*portions(read_times(TextFile("times.csv", table), ReadingOptions()), "canonical")]
    assert [text for portion in asked for text in portion.texts] == [0, 0, 0, 1]
    answers = [
        SequencesResponse(
            request_id="r",
            run_id="run",
            status="completed",
            scores=tuple([of_parts(len(one.parts), is_cut=text == 0) for text, one in zip(*of_portion, strict=True)]),
        )
        for of_portion in ((portion.texts, portion.request.sequences) for portion in asked)
    ]
    assert scores_of(903, asked, answers).n_cut == 1
