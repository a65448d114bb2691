"""Plans and records of small experiments, and texts of made-up languages."""

from hashlib import sha256
from pathlib import Path
from random import Random

from tests.support import add_corpus
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, now
from trainer.contracts.corpora import BuiltLanguage, CorpusManifest
from trainer.contracts.experiments import CellKey, CellRun, ExperimentRecord, ExperimentRequest

TINY: dict[str, object] = {
    **{"model_family": "lstm", "model": {"embedding_size": 8, "hidden_size": 8, "num_layers": 1}, "device": "cpu"},
    **{"tokenizer": {"method": "char"}, "max_seq_len": 16, "batch_size": 4, "num_epochs": 1, "threads": 1},
    **{"split_by": "position", "holdout_fraction": 0.2, "test_fraction": 0.2},
}
SHA = "0123456789abcdef" * 4
WITH_BATTERIES: dict[str, object] = {
    "kk": {"branch": "kipchak", "batteries": ["kk_words"]},
    "tr": {"branch": "oghuz", "batteries": ["tr_words"]},
}
"""The languages of a plan with the batteries of `add_batteries`."""
ALPHABETS = {"kk": "ɑbdʃe ", "tr": "abdʒe "}


def plan(**fields: object) -> ExperimentRequest:
    """Two languages with tiny models of one seed."""
    languages: dict[str, object] = {"kk": {"branch": "kipchak"}, "tr": {"branch": "oghuz"}}
    models: dict[str, object] = {"lstm": {"train": TINY}}
    return parse(ExperimentRequest, {"name": "small", "languages": languages, "models": models, "seeds": [1], **fields})


def plan_with(train: dict[str, object], **fields: object) -> ExperimentRequest:
    """The same with other fields of the train request."""
    return plan(models={"lstm": {"train": {**TINY, **train}}}, **fields)


def experiment_record(name: str = "small", **fields: object) -> ExperimentRecord:
    request, experiment_id = plan(name=name, **fields), f"{name}-01234567"
    return ExperimentRecord(
        experiment_id=experiment_id, user_id=None, created_at=now(), request=request, request_hash=SHA, corpora={}
    )


def cell_run(key: CellKey, run_id: str) -> CellRun:
    return CellRun(model=key.model, language=key.language, seed=key.seed, run_id=run_id, is_reused=False)


def add_languages(folder: Path, lines: int = 40) -> None:
    """Put a corpus per language where corpora are looked up."""
    for code, alphabet in ALPHABETS.items():
        random = Random(code)
        add_corpus(folder, "\n".join("".join(random.choices(alphabet, k=30)) for _ in range(lines)), code)


def add_batteries(folder: Path, items: int = 12) -> dict[str, Path]:
    """Put a battery per language where batteries are looked up: words, and the same with their letters shuffled."""
    files: dict[str, Path] = {}
    for code, alphabet in ALPHABETS.items():
        random = Random(code)
        words = [random.choices(alphabet.strip(), k=6) for _ in range(items)]
        pairs = [f"letters,{''.join(word)},{''.join(random.sample(word, k=6))}" for word in words]
        files[code] = folder / "data" / "batteries" / f"{code}_words.csv"
        files[code].parent.mkdir(parents=True, exist_ok=True)
        files[code].write_text("\n".join(["paradigm,good,bad", *pairs]), encoding="utf-8")
    return files


def built_manifest(source: str, text: str, *languages: str) -> CorpusManifest:
    """The manifest of a build that has made a file with the same text for each language."""
    data = text.encode()
    built = {
        language: BuiltLanguage(
            file=FileRecord(path=f"{source}_{language}_ipa.txt", bytes=len(data), sha256=sha256(data).hexdigest()),
            source_sha256=None,
            lines=text.count("\n"),
            characters=len(text),
            threshold=0,
            documents=1,
            rejected_documents=0,
            rejected_share=0,
            steps=(),
            removed=(),
        )
        for language in languages
    }
    return CorpusManifest(
        source=source,
        dataset=None,
        is_ipa=True,
        min_ipa_share=0,
        min_line_characters=0,
        off=(),
        budget_characters=None,
        languages=built,
        versions={},
    )
