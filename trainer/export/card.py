"""The model card of an exported folder, written from the run's manifest: numbers with units, how to load, limits."""

from collections.abc import Iterator

from trainer.contracts.models import BertConfig, Gpt2Config, RnnConfig
from trainer.contracts.runs import RunManifest
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.wording import counted
from trainer.export.record import FolderFormat

_LOAD_LIBRARY = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER"{trust})
model = {auto}.from_pretrained("FOLDER"{trust})
```
"""
_CONTINUE = """\
```python
ids = tokenizer(tokenizer.bos_token + "text", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0], skip_special_tokens=True))
```
"""
_LOAD_SCRIPT = """\
TorchScript is a legacy format: PyTorch has deprecated it, and `--format hf` is the one to take. `model.pt` needs
PyTorch alone:

```python
model = torch.jit.load("FOLDER/model.pt")
logits, *state = model({inputs})
```
"""
_LOAD_GRAPH = """\
```python
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
logits, *state = session.run(None, {{"ids": ids, {inputs}}})
```
"""


def model_card(
    manifest: RunManifest,
    tokenizer: TokenizerManifest,
    context_tokens: int | None,
    to: FolderFormat,
    licence: str | None,
) -> str:
    """Return the card as Markdown, with the metadata that model hubs read."""
    effective = manifest.effective
    is_causal = effective.objective == "causal_lm"
    metadata = {
        "library_name": {"hf": "transformers", "torchscript": "pytorch", "onnx": "onnx"}[to],
        "pipeline_tag": "text-generation" if is_causal else "fill-mask",
        "license": licence or "unknown",
    }
    parts = [
        "\n".join(["---", *(f"{name}: {value}" for name, value in metadata.items()), "---"]),
        f"# {manifest.run_id}",
        _what_it_is(manifest, tokenizer),
        "## Numbers",
        "\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in _numbers(manifest))]),
        "## Loading",
        *_loading(manifest, to),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(manifest, tokenizer, context_tokens, to, licence)),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _what_it_is(manifest: RunManifest, tokenizer: TokenizerManifest) -> str:
    effective = manifest.effective
    source = effective.provenance and f", of {effective.provenance.source_corpus}"
    return (
        f"A small language model ({effective.model_family}, {effective.objective}) over {tokenizer.vocab_size:,} tokens"
        f" ({tokenizer.method}), trained by Model Trainer on the text `{effective.corpus.name}`{source or ''}"
        f" ({effective.corpus.bytes:,} bytes, SHA-256 `{effective.corpus.sha256}`)."
    )


def _numbers(manifest: RunManifest) -> Iterator[tuple[str, str]]:
    metrics, environment = manifest.metrics, manifest.environment
    per = "token" if manifest.effective.objective == "causal_lm" else "masked token"
    data = manifest.data
    text = None if data is None else f"{counted(data.train.lines, 'line')}, {counted(data.train.chars, 'character')}"
    rows: tuple[tuple[str, float | str | None, str], ...] = (
        ("training loss", metrics.train, f"{{:.4f}} nats per {per}"),
        ("validation loss", metrics.best, f"{{:.4f}} nats per {per}"),
        ("validation", metrics.best_bits_per_char, "{:.4f} bits per character"),
        ("test loss", metrics.test, f"{{:.4f}} nats per {per}"),
        ("test perplexity", metrics.test_perplexity, f"{{:.3f}} per {per}"),
        ("test", metrics.bits_per_char, "{:.4f} bits per character"),
        ("parameters", None if manifest.model is None else manifest.model.params, "{:,}"),
        ("training text", text, "{}"),
        (
            "training",
            counted(manifest.steps, "step"),
            f"{{}}, {manifest.timings.train_seconds:.0f} s, seed {manifest.seed}",
        ),
        ("trained with", None if environment is None else environment.libraries["torch"], "PyTorch {}"),
        ("trained on", None if environment is None else environment.device, "{}"),
        ("request hash", manifest.request_hash, "`{}`"),
    )
    yield from ((name, form.format(value)) for name, value, form in rows if value is not None)


def _loading(manifest: RunManifest, to: FolderFormat) -> Iterator[str]:
    config = manifest.effective.model
    is_causal = manifest.effective.objective == "causal_lm"
    if to == "hf":
        trust = ", trust_remote_code=True" if isinstance(config, RnnConfig) else ""
        yield _LOAD_LIBRARY.format(auto="AutoModelForCausalLM" if is_causal else "AutoModelForMaskedLM", trust=trust)
        if trust:
            yield (
                "The library has no recurrent language models, so this one brings its code (`modeling_recurrent.py`),"
                " which runs only with `trust_remote_code=True`. The tokenizer alone needs none:"
                ' `PreTrainedTokenizerFast.from_pretrained("FOLDER")`.'
            )
        if is_causal:
            yield _CONTINUE
        yield (
            'Where Model Trainer is installed: `trainer.load("FOLDER").surprisal("text")` gives the surprisal of each'
            " token with its place in the text."
        )
        return
    yield (_LOAD_SCRIPT if to == "torchscript" else _LOAD_GRAPH).format(inputs=_inputs(manifest, to))
    yield _state_in_words(manifest, to)


def _inputs(manifest: RunManifest, to: FolderFormat) -> str:
    """What the model takes besides the ids."""
    is_recurrent = isinstance(manifest.effective.model, RnnConfig)
    if manifest.effective.objective == "masked_lm":
        names = [] if is_recurrent and to == "torchscript" else ["lengths"]
    else:
        names = ["*state"] if to == "torchscript" else ["**state"]
    if to == "torchscript":
        return ", ".join(["ids", *names])
    return ", ".join(name if name.startswith("*") else f'"{name}": {name}' for name in names)


def _state_in_words(manifest: RunManifest, to: FolderFormat) -> str:
    config = manifest.effective.model
    if manifest.effective.objective == "masked_lm":
        return "`ids` are (batch, length), `lengths` (batch,) say how many of each row are read, both int64."
    if isinstance(config, RnnConfig):
        names = "`hidden` and `cell`" if config.architecture == "lstm" else "`hidden`"
        shape = f"({config.num_layers}, batch, {config.hidden_size})"
        return (
            f"`ids` are (batch, length) int64; the state is {names}, each {shape} float32, zeros at the start of a"
            " line. The state that comes out goes in with what follows."
        )
    heads = config.num_attention_heads if isinstance(config, Gpt2Config | BertConfig) else config.num_key_value_heads
    begin = "no place" if to == "torchscript" else "one place, zeros and not read, which is nothing"
    return (
        "`ids` are (batch, length) int64; the state is `read` (1, batch, places) bool, then of each of the"
        f" {config.num_layers} layers keys and values (1, batch, places, {heads},"
        f" {config.hidden_size // config.num_attention_heads}) float32. At the start of a line it"
        f" has {begin}. The state that comes out goes in with what follows."
    )


def _limits(
    manifest: RunManifest,
    tokenizer: TokenizerManifest,
    context_tokens: int | None,
    to: FolderFormat,
    licence: str | None,
) -> Iterator[str]:
    effective = manifest.effective
    if effective.objective == "causal_lm":
        yield (
            "Every line was read from its start token, so a text is to begin with `tokenizer.bos_token`, which the"
            " tokenizer does not add by itself; a score without it is another one. Lines end with"
            " `tokenizer.eos_token`."
        )
    else:
        yield "It fills gaps and continues no text; the tokenizer puts a text between its special tokens."
    if context_tokens is not None:
        yield f"It reads at most {context_tokens:,} tokens, special ones included."
    if to == "torchscript" and effective.objective == "masked_lm" and isinstance(effective.model, RnnConfig):
        yield "Rows of a batch must be equally long."
    yield "A special token that is spelled in a text is that token here; in Model Trainer it is text as any other."
    if tokenizer.method == "word":
        yield (
            "A word that is not in the vocabulary is the unknown token, and words are what stands between white space."
            " `decode` puts a space between all words; Model Trainer puts punctuation where print has it."
        )
    if tokenizer.normalization.lowercase:
        yield "Texts are lower-cased before they are encoded."
    yield "Texts are brought into Unicode's form NFC; unknown characters become the unknown token."
    yield "It learned from one text and says what that text would say: it is for measuring language, not for advice."
    if licence is None:
        yield "Its licence is unknown: it depends on that of the text."
