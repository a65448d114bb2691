"""ARPA files: read by the definition of the format, they give the probabilities of the model."""

import math
from pathlib import Path

import pytest
import torch

from tests.support.finished_runs import finished_run
from tests.support.refusals import refused
from tests.support.tiny_models import tensor_of
from trainer.contracts.errors import ErrorCode
from trainer.export.card import FolderFormat
from trainer.export.folders import export_folder, load_export
from trainer.inference.model_files import load_run
from trainer.models.base import LanguageModel
from trainer.ngrams.arpa import END, START, UNKNOWN, escaped

Table = dict[tuple[str, ...], tuple[float, float]]
"""The logarithms of probability and back-off weight of each n-gram, to the base of 10."""
PREDICTED_LOG = -30.0
"""The model gives less to a token that it never predicts."""


def read_arpa(path: Path) -> Table:
    """Read a file whose header counts the n-grams of each order."""
    head, *sections = path.read_text(encoding="utf-8").removesuffix("\n\\end\\\n").split("\n\\")
    sizes = [int(line.partition("=")[2]) for line in head.splitlines() if line.startswith("ngram ")]
    table: Table = {}
    for order, section in enumerate(sections, 1):
        title, *rows = section.splitlines()
        found: Table = {}
        for probability, ngram, *weight in (row.split("\t") for row in rows if row):
            found[tuple(ngram.split(" "))] = (float(probability), float(weight[0]) if weight else 0.0)
        assert title == f"{order}-grams:"
        assert {len(ngram) for ngram in found} == {order}
        table |= found
        assert len(found) == sizes[order - 1]
    assert len(sizes) == len(sections)
    return table


def log_probability(table: Table, context: tuple[str, ...], word: str) -> float:
    """Return log p(word | context): that of the n-gram, or that after a shorter context with the back-off weight."""
    if (*context, word) in table:
        return table[*context, word][0]
    return table.get(context, (0.0, 0.0))[1] + log_probability(table, context[1:], word)


def largest_difference(table: Table, model: LanguageModel, words: list[str], ids: list[int]) -> float:
    """Compare the predictions of all tokens at each place of a text, which starts with a token that is given."""
    special_ids, order = model.vocabulary.special_ids, max(map(len, table))
    with torch.inference_mode():
        rows: list[list[float]] = (model.forward(tensor_of([ids]))[0].double() / math.log(10)).tolist()
    start = words[special_ids.start] if special_ids.newline is not None else START
    read = [start, *(words[i] for i in ids[1:])]
    largest = 0.0
    for place, row in enumerate(rows, 1):
        context = tuple(read[:place][-(order - 1) :]) if order > 1 else ()
        for token, log in enumerate(row):
            if log > PREDICTED_LOG:
                largest = max(largest, abs(log - log_probability(table, context, words[token])))
    return largest


@pytest.mark.parametrize(
    ("method", "documents", "text"),
    [("char", "line", "the sun"), ("word", "line", "the sun was shining"), ("char", "stream", "the\nsun\n\nwas")],
)
def test_file__gives_the_probabilities_of_the_model(tmp_path: Path, method: str, documents: str, text: str) -> None:
    run = finished_run(tmp_path, "ngram", method, documents=documents)
    model, tokenizer = load_run(run)
    record = export_folder(run, "arpa", tmp_path / "out")
    assert {"model.arpa", "tokenizer/tokenizer.json"} <= {file.path for file in record.files}
    table = read_arpa(tmp_path / "out" / "model.arpa")
    words = [escaped(name) for name in tokenizer.names]
    words[tokenizer.special_ids.unk] = UNKNOWN
    if documents == "line":
        words[tokenizer.special_ids.eos] = END
    ids = [tokenizer.special_ids.start, *tokenizer.encode(text)]
    assert largest_difference(table, model, words, ids) < 2e-6
    assert {(START,), (END,), (UNKNOWN,)} <= table.keys()
    assert table[START,][0] == -99
    assert "kenlm.Model" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "is for other programs"):
        load_export(tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "to", "instead"),
    [
        *(("ngram", to, "arpa or archive") for to in ("hf", "onnx", "pt2", "torchscript")),
        *((family, "arpa", "hf") for family in ("gru", "gpt2")),
        ("gru", "pt2", "hf"),
    ],
)
def test_format__of_another_family_is_refused(tmp_path: Path, family: str, to: FolderFormat, instead: str) -> None:
    run = finished_run(tmp_path, family)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"The format `{to}` is not for {family}: take {instead}."):
        export_folder(run, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()
