"""Cards of exported models: how to load them, and what their numbers are."""

import re
import shutil
from math import exp, log, sqrt
from pathlib import Path
from statistics import stdev

import pytest
from huggingface_hub import ModelCard
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from syrupy.assertion import SnapshotAssertion

from tests.support.baselines import BETTER, BETTER_LINE, UNCLEAR, UNCLEAR_LINE, WORSE, WORSE_LINE, WORSE_WARNING
from tests.support.families import MASKED
from tests.support.finished_runs import finished_run
from tests.support.measured_runs import SUMMARY
from tests.support.properties import for_all
from tests.support.run_shell import FINISHED_RUN
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline, Baselines
from trainer.contracts.intervals import LineLosses
from trainer.contracts.looks import LookCount
from trainer.contracts.runs import DataFacts, EvalSummary, KnownFigures, Leak, SplitSizes
from trainer.contracts.tokenizers import Normalization
from trainer.contracts.training_options import Provenance
from trainer.export.card import CardFormat, FolderFormat, Publication, model_card
from trainer.export.folders import export_folder


def without_hash(card: str) -> str:
    """Return a card without its year, and without the hash of its request, which changes with every new field."""
    return re.sub(r"year = \{\d{4}\}", "year = {YEAR}", re.sub(r"`[0-9a-f]{64}` \|", "HASH |", card))


def sections(card: str, *headings: str) -> str:
    """Return the sections of a card with some headings."""
    parts = without_hash(card).split("\n## ")
    return "\n## ".join(part for part in parts if part.partition("\n")[0] in headings)


def exported(run: RunDirectory, folder: Path, form: FolderFormat) -> str:
    export_folder(run, form, folder, "cc0-1.0")
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["lstm", "gpt2", "bert", "gru both"])
def test_card__says_how_to_load_a_model_and_its_numbers(name: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    card = exported(finished_run(tmp_path, name), tmp_path / "out", "hf")
    assert sections(card, "Loading", "Limits") == snapshot
    assert f"pipeline_tag: {'fill-mask' if name in MASKED else 'text-generation'}\n" in card
    assert f"| test perplexity | {exp(2.125):.2f} per {'masked token' if name in MASKED else 'token'} |" in card
    is_recurrent = name in ("lstm", "gru both")
    assert ("trust_remote_code=True" in card) == is_recurrent == (tmp_path / "out" / "modeling_recurrent.py").exists()


PARTS = ["\n", "\r", "\n\n", "# ", "## Loading", "```python\n", "```", "~~~", "`", "<script>", "<!--", "&lt;"]
PARTS += ["license: mit", "|", "| - |", "- ", "1. ", "> ", "    ", "\t", "=\n", "[a](b)", "![", "*", "_", "\\"]
PARTS += ["\x1b]0;OWNED\x07", "\u202e", "\u2028", "\x00", "\x85", "word", " ", "é", "$", "@everyone", "<a href=x>"]
PARTS += ["---\n", "x" * 3000]


def test_text_of_a_person__is_one_line_of_words_in_a_card(tmp_path: Path) -> None:
    run, markdown = finished_run(tmp_path, "lstm"), MarkdownIt("commonmark").enable("table")
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)

    def card(text: str) -> str:
        effective = manifest.effective
        corpus = changed(effective.corpus, name=text)
        effective = changed(effective, provenance=Provenance(source_corpus=text), corpus=corpus)
        publication = Publication("ana/sea", "mit", text)
        return model_card(changed(manifest, effective=effective), tokenizer, "hf", None, None, publication)

    def structure(text: str) -> list[tuple[str, str]]:
        """The lines before a card's text, then its blocks, its code and its HTML."""
        head, _, body = card(text).removeprefix("---\n").partition("\n---\n")
        found = [("head", line) for line in head.split("\n")]
        for token in markdown.parse(body):
            found.append((token.type, token.content if token.type in ("fence", "html_block") else ""))
            kinds = [child.type for child in token.children or ()]
            found += [(kind, "") for kind in kinds if kind not in ("text", "text_special", "code_inline", "entity")]
        return found

    plain = structure("word")

    @for_all(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join))
    def check(text: str) -> None:
        assert structure(text) == plain

    check()
    words = r"a \*b\* \<i\>\`c\`\</i\> \| d\_e\_ \#\# f"
    assert words in card("a *b*  <i>`c`</i> | d_e_\n## f\x07"), "Markdown shows the words as they were given"


@pytest.mark.parametrize(
    ("name", "form", "library"),
    [
        *(("gpt2", "onnx", "onnx"), ("qwen", "onnx", "onnx"), ("gru both", "torchscript", "pytorch")),
        ("bert", "archive", "model-trainer"),
    ],
)
def test_card_of_another_format__says_how_to_load_it(
    name: str, form: CardFormat, library: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    run = finished_run(tmp_path, name)
    card = model_card(run.completed_manifest(), read_manifest(run.tokenizer), form, None)
    assert card.startswith(f"---\nlibrary_name: {library}\n") and "\nlicense: unknown\n" in card
    assert sections(card, "Loading", "Limits") == snapshot


@pytest.mark.parametrize(("name", "inputs"), [("gpt2", "ids"), ("bert", "ids, lengths")])
def test_card_of_a_program__says_how_to_load_and_call_it(name: str, inputs: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, name)
    card = model_card(run.completed_manifest(), read_manifest(run.tokenizer), "pt2", None)
    assert f'model = torch.export.load("FOLDER/model.pt2").module()\nlogits = model({inputs})\n' in card
    assert ("complete lines from their beginning" in card) == (name == "gpt2")
    assert "library_name: pytorch" in card


def test_card_of_a_trained_run__says_all_that_is_known(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    assert "| CPU | AMD EPYC, 1 thread |" in exported(run, tmp_path / "out", "hf")
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)
    assert manifest.data is not None and manifest.data.test is not None and manifest.environment is not None
    leaking = changed(manifest.data.test, leak=Leak(lines=0.5, words=0.25))
    known = changed(
        manifest,
        effective=changed(manifest.effective, provenance=Provenance(source_corpus="a fairy tale")),
        data=changed(manifest.data, test=leaking, notes=("Three lines are frequent.",)),
        environment=changed(manifest.environment, cpu_capability="AVX2"),
        metrics=changed(manifest.metrics, best_margin=0.0625),
    )
    lower = changed(tokenizer, normalization=Normalization(lowercase="tr"))
    card = model_card(known, lower, "hf", None)
    assert "on the text `text`, of a fairy tale (1,177 bytes" in card
    assert sections(card, "Numbers", "Limits") == snapshot
    of_steps = changed(manifest, effective=changed(manifest.effective, max_steps=manifest.effective.num_epochs))
    for one, has_epochs in ((manifest, True), (of_steps, False)):
        card = model_card(one, tokenizer, "hf", None, None, Publication("ana/sea"))
        assert ("| epochs | 2 |" in card) == has_epochs


@pytest.mark.parametrize("step", [None, 1000], ids=["final", "step"])
def test_card_of_a_repository__says_data_settings_and_revision(
    step: int | None, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    publication = Publication("ana/sea", "CC-BY-4.0", "CC0-1.0", (0, 1000), step)
    card = model_card(
        run.completed_manifest(), read_manifest(run.tokenizer), "hf", publication.licence, None, publication
    )
    if step is None:
        assert without_hash(card) == snapshot
    else:
        assert "\n\nThese are the weights after step 1,000. The final model, with its losses, is the revision" in card
        assert sections(card, "Numbers", "Loading") == snapshot
    read: dict[str, object] = vars(ModelCard(card).data)  # as the hub reads it
    expected = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": "cc-by-4.0"}
    assert {name: value for name, value in read.items() if value} == {**expected, "tags": ["model-trainer"]}


def test_card_of_a_repository__names_what_a_repetition_needs(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gpt2")
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)
    started = changed(manifest.effective, tokenizer_id="bpe-1", init_from_run_id="gpt2-1")
    manifest = changed(manifest, effective=started)
    publication = Publication("ana/sea", steps=(500,))
    card = model_card(manifest, tokenizer, "hf", None, None, publication)
    assert "folder and the run `gpt2-1` and the tokenizer `bpe-1`, `mt train experiment.yaml` repeats" in card
    assert "The weights after 1 step are revisions of their own: `step-500`." in card
    assert "| `text` |" in card and "| unknown |" in card
    known = changed(manifest, effective=changed(manifest.effective, provenance=Provenance(source_corpus="a tale")))
    people = "the people who trained the model: write them into README.md and CITATION.cff on the hub"
    assert publication.missing(manifest)[0] == "the license of the model: give `--license`"
    assert publication.missing(manifest)[1] == "the license of the text `text`: give `--data-license`"
    assert publication.missing(manifest)[2:] == ("the source of the text: write it into README.md on the hub", people)
    assert publication._replace(licence="mit", data_licence="mit").missing(known) == (people,)


@pytest.mark.parametrize(
    ("baseline", "text"),
    [(BETTER, BETTER_LINE), (WORSE, f"{WORSE_LINE}. {WORSE_WARNING}")],
)
def test_card__compares_the_model_with_counting(baseline: Baseline, text: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gpt2")
    baselines: Baselines = {"validation": UNCLEAR, "test": baseline}
    manifest, tokenizer = changed(run.completed_manifest(), baselines=baselines), read_manifest(run.tokenizer)
    assert f"| counting | {text} |" in model_card(manifest, tokenizer, "hf", None)
    without_test = model_card(changed(manifest, baselines={"validation": UNCLEAR}), tokenizer, "hf", None)
    assert f"| counting | {UNCLEAR_LINE}. " in without_test
    other_weights = model_card(manifest, tokenizer, "hf", None, 500)
    assert "counting" not in other_weights, "the numbers at the end are not those of a checkpoint"


def test_card__marks_all_losses_of_unknown_text(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gpt2")
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)
    clean = model_card(manifest, tokenizer, "hf", None)
    assert "(!)" not in clean
    half = SplitSizes(lines=1, chars=8, tokens=8, unknown_chars=4)
    data = DataFacts(corpus=manifest.effective.corpus, train=half, validation=half, test=None)
    known = KnownFigures(loss=3.0, top1_accuracy=0.125, top5_accuracy=0.25, n_tokens=9)
    marked = changed(manifest, data=data, eval=(changed(SUMMARY, known=known),))
    rows = [row for row in model_card(marked, tokenizer, "hf", None).splitlines() if row.endswith(" (!) |")]
    names = ["training loss", "validation loss", "test loss", "test perplexity", "test"]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in names]
    assert "Over known tokens: 4.328 bits per token, perplexity 20.09" in model_card(marked, tokenizer, "hf", None)


def test_card__has_the_interval_of_the_test_loss(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gpt2")
    tokens = (10,) * 9
    nats = (20.0, 22.0, 19.0, 21.5, 24.0, 18.0, 20.5, 23.0, 20.0)
    lines = LineLosses(nats=nats, tokens=tokens, chars=tokens)
    summary = EvalSummary(split="test", loss=2.125, perplexity=8.373, lines=lines)
    manifest = changed(run.completed_manifest(), eval=(changed(summary, split="validation"), summary))
    half = 2.306004 * stdev(nats) / 10 / sqrt(9) / log(2)  # Student's t for lines of equal length
    assert f"| test loss | {2.125 / log(2):.3f} ± {half:.3f} (95 %) bits" in model_card(
        manifest, read_manifest(run.tokenizer), "hf", None
    )


def test_card__says_how_often_the_test_text_was_read(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm")
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)
    locked = changed(manifest, metrics=changed(manifest.metrics, test=None, test_perplexity=None, bits_per_char=None))
    for looks, read, text in (
        (3, manifest, "the test loss was read with 3 looks at this test text; 31 runs trained on its corpus so far"),
        (0, locked, "the test split is locked; 0 looks at this test text; 31 runs trained on its corpus so far"),
    ):
        counted = changed(read, test_looks=LookCount(test_id="a" * 64, looks=looks, runs=31))
        assert f"\n| looks | {text} |\n" in model_card(counted, tokenizer, "hf", None)
    assert "| looks |" not in model_card(manifest, tokenizer, "hf", None), "of an earlier version"
