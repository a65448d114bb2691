"""Completed runs of every family, made without training: what exports and archives begin from."""

from pathlib import Path

from tests.support.families import MASKED, effective_of, model_of, request_of
from tests.support.runs import put_in_place, record
from tests.support.tiny_models import char_tokenizer, tokenizer_of
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.contracts.runs import CorpusRef, ModelFacts, RunManifest, RunMetrics
from trainer.data.text import corpus_sha256
from trainer.inference.model_files import save_model
from trainer.system.files import file_records
from trainer.tokenizers.base import Tokenizer, vocabulary_of

LINES = ["the sun was shining on the sea", "shining with all his might", "he did his very best to make"]


def finished_run(
    folder: Path,
    family: str,
    method: str = "char",
    corpus: Path | None = None,
    run_id: str | None = None,
    **fields: object,
) -> RunDirectory:
    """A completed run of a family at its smallest, with large random weights and a tokenizer of these lines.

    Without an id it has that of its family and tokenizer, and behind it a number if another test has made such a run.
    """
    tokenizer = _tokenizer(family, method, fields.get("documents", "line"))
    model = model_of(family, vocabulary_of(tokenizer))
    update: dict[str, object] = {"tokenizer": tokenizer.manifest.config}
    if corpus is not None:
        update["corpus"] = CorpusRef(name=corpus.stem, sha256=corpus_sha256(corpus), bytes=corpus.stat().st_size)
    effective = effective_of(family, **fields).model_copy(update=update)
    store, name = RunStore(folder / "artifacts"), f"{family}-{method}".replace(" ", "-")
    names = (name, *(f"{name}-{number}" for number in range(2, 100)))
    free = run_id or next(one for one in names if store.find(one) is None)
    accepted = record(free, None, request=request_of(family), effective=effective)
    run = RunStore(folder / "making").create(accepted)  # where no worker finds it before its end
    config = model.built_from if family == "ngram" else effective.model
    save_model(run.path, model, config)
    tokenizer.save(run.tokenizer)
    written = [run.path / "config.json", run.path / "model.safetensors", *run.tokenizer.iterdir()]
    facts = ModelFacts(
        family=effective.model_family,
        size=None,
        params=model.parameter_count(),
        tied=effective.model.tie_word_embeddings,
        vocab_size=model.vocab_size,
        dims=config,
    )
    done: dict[str, object] = {
        "status": "completed",
        "model": facts,
        "metrics": RunMetrics(train=2.5, best=2.25, test=2.125, test_perplexity=8.373, bits_per_char=3.066),
        "files": file_records(run.path, written),
    }
    manifest: RunManifest = manifest_of(accepted, "failed").model_copy(update=done)
    with run.open_log() as events:
        finish_run(run, events, manifest)
    return put_in_place(run, folder)


def _tokenizer(family: str, method: str, documents: object) -> Tokenizer:
    masked = family in MASKED
    if method == "char" and documents == "line":
        return char_tokenizer(LINES, mask_token=masked)
    if method in ("char", "word", "byte"):
        return tokenizer_of(method, LINES, documents=documents)
    has_bytes = method.endswith(" with bytes")
    name, *model_type = method.removesuffix(" with bytes").split()  # "sentencepiece bpe", say
    style = "gpt2_mask" if masked else "gpt2"
    fields: dict[str, object] = {"vocab_size": 60, "special_style": style, "documents": documents}
    if has_bytes:
        fields |= {"vocab_size": 320, "byte_fallback": True}
    return tokenizer_of(name, LINES, ("a b",), **fields, **({"model_type": model_type[0]} if model_type else {}))
