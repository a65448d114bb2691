"""The model card of an export: metrics with units, how to load the model, its limits and its citation."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from trainer.artifacts.archives import CITATION_FILE, PASSPORT_FILES
from trainer.contracts.base import FileRecord, Frozen, Identifier, model_name
from trainer.contracts.environment import Environment
from trainer.contracts.looks import LookCount
from trainer.contracts.models import BertConfig, Gpt2Config, NgramConfig, RnnConfig, TransformerConfig
from trainer.contracts.runs import RunManifest, has_unknown_text
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.training_options import one_line
from trainer.contracts.units import LOSS_DIGITS, PERPLEXITY_DIGITS, loss_number
from trainer.contracts.wording import counted
from trainer.export.citation import bibtex, citation_file
from trainer.inference.model_files import ModelFile
from trainer.reports.leak_notes import leak_warnings, shares_note
from trainer.reports.report_text import Reader
from trainer.reports.run_notes import counting_note, describe_unknown, known_note, looks_note

FolderFormat = Literal["hf", "pt2", "torchscript", "onnx", "arpa"]
CardFormat = Literal[FolderFormat, "archive"]
EXPERIMENT_FILE = "experiment.yaml"
_BITS = Reader("bits")
_MARKS = re.compile(r"[\\`*_{}\[\]<>#|~&!$@^]")
_OPENING = re.compile(r"(?<!\\)<")
_PLAIN_NAME = re.compile(r"[\w.+/ -]*[\w.+/-]")


class ExportRecord(Frozen):
    """`export.json`: the files of the folder without card and citation, and the run that it was exported from."""

    schema_version: Literal[1] = 1
    format: FolderFormat
    run_id: Identifier
    checkpoint: int | None = None
    """The step of the exported checkpoint; None for the model of the run."""
    model: ModelFile
    files: tuple[FileRecord, ...]


class Publication(NamedTuple):
    """Facts of a repository on the hub that its card needs besides the manifest."""

    repository: str
    licence: str | None = None
    """Licence of the model; None if nobody has named it, like that of the corpora."""
    data_licence: str | None = None
    steps: tuple[int, ...] = ()
    """Steps that have a revision."""
    step: int | None = None
    """Step of this revision; None for the final model."""

    @property
    def source(self) -> str:
        """The arguments with which the library loads this revision."""
        return f'"{self.repository}"' + ("" if self.step is None else f', revision="step-{self.step}"')

    @property
    def pulled(self) -> str:
        return self.repository + ("" if self.step is None else f"@step-{self.step}")

    def missing(self, manifest: RunManifest) -> tuple[str, ...]:
        """Return the facts that the card lacks, with how to add them."""
        facts = (
            (self.licence, "the license of the model: give `--license`"),
            (self.data_licence, f"the license of the text `{manifest.effective.corpus.name}`: give `--data-license`"),
            (manifest.effective.provenance, "the source of the text: write it into README.md on the hub"),
            (None, "the people who trained the model: write them into README.md and CITATION.cff on the hub"),
        )
        return tuple(what for fact, what in facts if fact is None)


_LOAD_LIBRARY = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({source}{trust})
model = {auto}.from_pretrained({source}{trust})
```
"""
_CONTINUE = """\
```python
ids = tokenizer({start} + "text", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0], skip_special_tokens=True))
```
"""
_LOAD_PROGRAM = """\
`model.pt2` is a program of `torch.export` and needs only PyTorch:

```python
model = torch.export.load("FOLDER/model.pt2").module()
logits = model({inputs})
```
"""
_LOAD_SCRIPT = """\
TorchScript is a legacy format that PyTorch has deprecated: prefer `--format hf`. `model.pt` needs only PyTorch:

```python
model = torch.jit.load("FOLDER/model.pt")
{outputs} = model(ids, {inputs})
```
"""
_LOAD_GRAPH = """\
```python
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
{outputs} = session.run(None, {{"ids": ids, {inputs}}})
```
"""
_LOAD_ARPA = """\
`model.arpa` has the n-grams with their log probabilities to the base of 10, for KenLM, SRILM and other toolkits. Its
words are tokens: white space and the backslash are written as in Python, a space as `\\u0020`.

```python
model = kenlm.Model("FOLDER/model.arpa")
model.score("t o k e n s", bos=True, eos=True)
```
"""
_LOAD_ARCHIVE = """\
The archive is for Model Trainer: `mt import FILE` checks every file and restores the run with its checkpoints.

```python
model = trainer.load("{run_id}")
```
"""


def passport(
    manifest: RunManifest,
    tokenizer: TokenizerManifest,
    to: CardFormat,
    licence: str | None,
    step: int | None = None,
    publication: Publication | None = None,
) -> dict[str, bytes]:
    """Return the files that go with a model everywhere, by name: its card and its citation."""
    texts = (model_card(manifest, tokenizer, to, licence, step, publication), citation_file(manifest, licence))
    return {name: text.encode() for name, text in zip(PASSPORT_FILES, texts, strict=True)}


def model_card(
    manifest: RunManifest,
    tokenizer: TokenizerManifest,
    to: CardFormat,
    licence: str | None,
    step: int | None = None,
    publication: Publication | None = None,
) -> str:
    """Return the card of a run's model, or of a checkpoint, as Markdown with the metadata that model hubs read.

    The card of a repository also describes its revisions, the data and the settings.
    """
    effective = manifest.effective
    is_causal = effective.objective == "causal_lm"
    libraries = {"hf": "transformers", "pt2": "pytorch", "torchscript": "pytorch", "onnx": "onnx"}
    metadata = {
        "library_name": libraries.get(to, "model-trainer"),
        "pipeline_tag": "text-generation" if is_causal else "fill-mask",
        "license": (licence or "unknown").lower(),  # as the hub spells it
        **({} if publication is None else {"tags": "[model-trainer]"}),
    }
    parts = [
        "\n".join(["---", *(f"{name}: {one_line(value)}" for name, value in metadata.items()), "---"]),
        f"# {model_name(manifest.run_id, step)}",
        _description(manifest, tokenizer),
        *([] if publication is None else _published(manifest, publication)),
        "## Numbers",
        _table(("what", "value"), _numbers(manifest, step if publication is None else publication.step)),
        "## Loading",
        *_loading(manifest, to, publication),
        "## Limits",
        "\n".join(f"- {_sentence(limit)}" for limit in _limits(manifest, tokenizer, to, licence)),
        "## Citing",
        f"`{CITATION_FILE}` has the hashes of the request, of the weights and of the corpora.",
        bibtex(manifest),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    first, *others = (f"| {' | '.join(map(_sentence, row))} |" for row in (header, *rows))
    return "\n".join((first, "|---" * len(header) + "|", *others))


def _plain(text: str) -> str:
    """Return a text of a person in one line of Markdown that shows it: nothing of it is a mark, a link or HTML."""
    return _MARKS.sub(r"\\\g<0>", one_line(text))


def _name(text: str) -> str:
    """Return a name as code, or as plain text where it has other signs than names usually have."""
    return f"`{text}`" if _PLAIN_NAME.fullmatch(text) else _plain(text)


def _sentence(text: str) -> str:
    """Return a sentence or a cell of this program, which may quote names, in one line without HTML."""
    parts = one_line(text).split("`")
    parts[::2] = (_OPENING.sub(r"\\<", part) for part in parts[::2])
    return "`".join(parts)


def _published(manifest: RunManifest, publication: Publication) -> Iterator[str]:
    """Yield the parts of a card that stand in a repository only: its revisions, its data and its settings."""
    last = f"`step-{publication.steps[-1]}`" if publication.steps else ""
    if publication.step is not None:
        yield (
            f"These are the weights after step {publication.step:,}. The final model, with its losses, is the revision"
            " `main`."
        )
    elif publication.steps:
        others = f"`step-{publication.steps[0]}` to {last}" if len(publication.steps) > 1 else last
        yield f"The weights after {counted(len(publication.steps), 'step')} are revisions of their own: {others}."
    yield "## Data"
    named = {corpus.sha256: corpus for corpus in manifest.effective.corpora}.values()
    licence = publication.data_licence or "unknown"
    texts = [(_name(text.name), f"{text.bytes:,} bytes", f"`{text.sha256}`", _plain(licence)) for text in named]
    yield _table(("text", "size", "SHA-256", "license"), texts)
    if manifest.data is not None:
        sizes = {"training": manifest.data.train, "validation": manifest.data.validation, "test": manifest.data.test}
        counts = ((name, size) for name, size in sizes.items() if size is not None)
        rows = ((name, f"{size.lines:,}", f"{size.chars:,}", f"{size.tokens:,}") for name, size in counts)
        yield _table(("split", "lines", "characters", "tokens"), rows)
    yield "## Settings"
    yield _table(("setting", "value"), _settings(manifest))
    effective = manifest.effective
    needed = ((effective.init_from_run_id, "the run"), (effective.tokenizer_id, "the tokenizer"))
    more = "".join(f" and {what} `{needed_id}`" for needed_id, what in needed if needed_id is not None)
    yield (
        f"`{EXPERIMENT_FILE}` has all settings that differ from their defaults. With the same texts in the corpus"
        f" folder{more}, `mt train {EXPERIMENT_FILE}` repeats the training."
    )


def _settings(manifest: RunManifest) -> Iterator[tuple[str, str]]:
    effective = manifest.effective
    yield "model", f"{effective.model.architecture}, {effective.model.sizes()}"
    yield "tokens per row", f"{effective.max_seq_len:,}"
    yield "rows per step", f"{effective.batch_size} x {effective.gradient_accumulation}"
    if not effective.counts_steps:
        yield "epochs", f"{effective.num_epochs:,}"
    yield "optimizer", effective.optimizer.name
    yield "learning rate", f"{effective.learning_rate:g}, {effective.lr_schedule}"
    decay, norm, average = effective.optimizer.weight_decay, effective.gradient_clipping, effective.ema_decay
    yield "weight decay", "none" if decay is None else f"{decay:g}"
    yield "largest gradient norm", "none" if norm is None else f"{norm:g}"
    yield "moving average of the weights", "none" if average is None else f"decay {average:g}"
    yield "precision", effective.precision
    yield "seeds", f"{effective.seed}, of the splits {effective.split_seed}"


def _description(manifest: RunManifest, tokenizer: TokenizerManifest) -> str:
    effective = manifest.effective
    source = effective.provenance and f", of {_plain(effective.provenance.source_corpus)}"
    return (
        f"A small language model ({effective.model_family}, {effective.objective}) over {tokenizer.vocab_size:,} tokens"
        f" ({tokenizer.method}), trained by Model Trainer on the text {_name(effective.corpus.name)}{source or ''}"
        f" ({effective.corpus.bytes:,} bytes, SHA-256 `{effective.corpus.sha256}`)."
    )


def _numbers(manifest: RunManifest, step: int | None) -> Iterator[tuple[str, str]]:
    """Yield the facts of a training; the losses at its end are not those of a checkpoint."""
    metrics, environment = manifest.metrics, manifest.environment
    per = "token" if manifest.effective.objective == "causal_lm" else "masked token"
    tested = manifest.evaluation("test")
    baseline = manifest.reported_baseline
    data = manifest.data
    leaks = {} if data is None else data.leaks
    text = None if data is None else f"{counted(data.train.lines, 'line')}, {counted(data.train.chars, 'character')}"
    mark = " (!)" if has_unknown_text(manifest.unknown_char_share) else ""
    known = None if tested is None or not mark else tested.known
    measured: tuple[tuple[str, float | str | None, str], ...] = (
        ("training loss", _loss(metrics.train, per), f"{{}}{mark}"),
        ("training loss", "– (shorter than an epoch)" if metrics.train is None else None, "{}"),
        ("validation loss", _loss(metrics.best, per, metrics.best_margin), f"{{}}{mark}"),
        ("validation", metrics.best_bits_per_char, f"{{:.{LOSS_DIGITS}f}} bits per character{mark}"),
        ("test loss", _loss(metrics.test, per, None if tested is None else tested.lines.margin_nats), f"{{}}{mark}"),
        ("test perplexity", metrics.test_perplexity, f"{{:.{PERPLEXITY_DIGITS}f}} per {per}{mark}"),
        ("test", metrics.bits_per_char, f"{{:.{LOSS_DIGITS}f}} bits per character{mark}"),
        ("test of known tokens", None if known is None else _BITS.note(known_note(known)), "{}"),
        ("looks", None if manifest.test_looks is None else _looks(manifest, manifest.test_looks), "{}"),
        (
            "counting",
            None if baseline is None else ". ".join((_BITS.note(counting_note(baseline)), *baseline.warnings())),
            "{}",
        ),
    )
    rows: tuple[tuple[str, float | str | None, str], ...] = (
        *(measured if step is None else [("checkpoint", f"after step {step:,}", "{}")]),
        ("unknown", describe_unknown(manifest.unknown_char_share), "{}"),
        *((f"{split} split in training text", _BITS.note(shares_note(leak)), "{}") for split, leak in leaks.items()),
        ("parameters", None if manifest.model is None else manifest.model.params, "{:,}"),
        ("training text", text, "{}"),
        (
            "training",
            counted(manifest.steps, "step"),
            f"{{}}, {manifest.timings.train_seconds:.0f} s, seed {manifest.seed}",
        ),
        ("trained with", None if environment is None else environment.libraries["torch"], "PyTorch {}"),
        ("trained on", None if environment is None else environment.device, "{}"),
        ("CPU", None if environment is None else ", ".join(_cpu(environment)), "{}"),
        ("request hash", manifest.request_hash, "`{}`"),
    )
    yield from ((name, form.format(value)) for name, value, form in rows if value is not None)


def _looks(manifest: RunManifest, looks: LookCount) -> str:
    """Return how often the test text had been read when this run was measured on it, or ended without that."""
    if manifest.metrics.test is None:
        return f"the test split is locked; {_BITS.note(looks_note(looks))} so far"
    return f"the test loss was read with {_BITS.note(looks_note(looks))} so far"


def _loss(nats: float | None, per: str, margin_nats: float | None = None) -> str | None:
    """Return a loss in bits, the default unit of people, with its 95 % interval; None without a loss."""
    margin = "" if margin_nats is None else f" ± {loss_number(margin_nats, 'bits')} (95 %)"
    return None if nats is None else f"{loss_number(nats, 'bits')}{margin} bits per {per}"


def _cpu(environment: Environment) -> Iterator[str]:
    """Yield the CPU with what decides the last bits of its sums."""
    yield environment.cpu
    if environment.cpu_capability is not None:
        yield environment.cpu_capability
    yield counted(environment.threads, "thread")


def _loading(manifest: RunManifest, to: CardFormat, publication: Publication | None) -> Iterator[str]:
    is_causal = manifest.effective.objective == "causal_lm"
    if to == "hf":
        source = '"FOLDER"' if publication is None else publication.source
        trust = ", trust_remote_code=True" if isinstance(manifest.effective.model, RnnConfig) else ""
        auto = "AutoModelForCausalLM" if is_causal else "AutoModelForMaskedLM"
        yield _LOAD_LIBRARY.format(auto=auto, source=source, trust=trust)
        if trust:
            yield (
                "Transformers has no recurrent language models. The folder therefore brings its code"
                " (`modeling_recurrent.py`), which runs only with `trust_remote_code=True`. The tokenizer needs none:"
                f" `PreTrainedTokenizerFast.from_pretrained({source})`."
            )
        if is_causal:
            yield _CONTINUE.format(start="tokenizer.bos_token" if manifest.effective.documents == "line" else '"\\n"')
        pull, loaded = "", "FOLDER"
        if publication is not None:
            pull, loaded = f" `mt pull {publication.pulled}` makes a run of it, and", manifest.run_id
        yield (
            f'With Model Trainer installed,{pull} `trainer.load("{loaded}").surprisal("text")` returns the surprisal of'
            " each token with its position in the text."
        )
    elif to == "pt2":
        yield _LOAD_PROGRAM.format(inputs="ids" if is_causal else "ids, lengths")
        yield _inputs(manifest)
    elif to == "torchscript":
        inputs, outputs = ("*state", "logits, *state") if is_causal else ("lengths", "logits")
        yield _LOAD_SCRIPT.format(inputs=inputs, outputs=outputs)
        yield _inputs(manifest, "no positions")
    elif to == "arpa":
        yield _LOAD_ARPA
    elif to == "archive":
        yield _LOAD_ARCHIVE.format(run_id=manifest.run_id)
    else:
        inputs, outputs = ("**state", "logits, *state") if is_causal else ('"lengths": lengths', "[logits]")
        yield _LOAD_GRAPH.format(inputs=inputs, outputs=outputs)
        yield _inputs(manifest, "one position of zeros, which counts as not read")


def _inputs(manifest: RunManifest, empty: str | None = None) -> str:
    """Return the shapes of the inputs of a graph, and how its state starts if it has one."""
    config = manifest.effective.model
    if manifest.effective.objective == "masked_lm":
        return "`ids` are (batch, length), `lengths` (batch,) are the numbers of tokens to read per row, both int64."
    unit = "line" if manifest.effective.documents == "line" else "text"
    if empty is None:
        return f"`ids` are (batch, length) int64: complete {unit}s from their beginning, padded after their ends."
    if not isinstance(config, TransformerConfig):
        names = "`hidden` and `cell`" if config.architecture == "lstm" else "`hidden`"
        state = f"{names}, each ({config.num_layers}, batch, {config.hidden_size}) float32"
        start = "zeros"
    else:
        heads = (
            config.num_attention_heads if isinstance(config, Gpt2Config | BertConfig) else config.num_key_value_heads
        )
        size = config.hidden_size // config.num_attention_heads
        state = (
            f"`read` (1, batch, positions) bool, then for each of the {config.num_layers} layers keys and values"
            f" (1, batch, positions, {heads}, {size}) float32"
        )
        start = empty
    return (
        f"`ids` are (batch, length) int64. The state is {state}. At the start of a {unit} it has {start}. Pass the"
        " returned state with the next ids."
    )


def _limits(manifest: RunManifest, tokenizer: TokenizerManifest, to: CardFormat, licence: str | None) -> Iterator[str]:
    if to not in ("arpa", "archive"):
        yield from _differences(manifest, tokenizer)
    elif manifest.effective.objective == "masked_lm":
        yield "It predicts masked tokens and continues no text."
    config = manifest.effective.model if manifest.model is None else manifest.model.dims
    if isinstance(config, NgramConfig):
        yield f"It predicts a token from the {counted((config.order or 1) - 1, 'token')} before it."
    elif isinstance(config, TransformerConfig):
        yield f"It reads at most {config.max_position_embeddings:,} tokens, including special ones."
    if lowercase := tokenizer.normalization.lowercase:
        by = "" if lowercase is True else f" by the rules of the language `{lowercase}` (I becomes ı, İ becomes i)"
        yield f"Texts are lower-cased before they are encoded{by}."
    yield "Texts are normalized to Unicode NFC. Unknown characters become the unknown token."
    if manifest.data is not None:
        yield from manifest.data.notes
        yield from leak_warnings(manifest.effective, manifest.data.leaks)
    yield "It learned from one corpus and repeats what that corpus says: use it to measure language, not for advice."
    if licence is None:
        yield "Its licence is unknown: it depends on the licence of the corpus."


def _differences(manifest: RunManifest, tokenizer: TokenizerManifest) -> Iterator[str]:
    """Yield what a caller of the exported tokenizer has to do, and where the tokenizer differs."""
    if tokenizer.documents == "stream":
        yield (
            "Start every text with a newline, as in training: the tokenizer does not add it, and scores without it"
            " differ. Newlines are tokens, and a text has no end token."
        )
    elif manifest.effective.objective == "causal_lm":
        yield (
            "Start every text with `tokenizer.bos_token`, as in training: the tokenizer does not add it, and scores"
            " without it differ. Lines end with `tokenizer.eos_token`."
        )
    else:
        yield "It predicts masked tokens and continues no text. The tokenizer adds the special tokens around a text."
    yield "A special token that is spelled in a text becomes that token here; Model Trainer reads it as plain text."
    if tokenizer.method == "word":
        yield (
            "Words are separated by white space, and a word outside the vocabulary is the unknown token. `decode` puts"
            " a space between all words; Model Trainer attaches punctuation as in print."
        )
