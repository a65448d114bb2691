"""Experiments: checks a request with all of its trainings."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

from pydantic import JsonValue
from pydantic_core import to_json

from trainer.artifacts.experiments import ExperimentStore, shared_tokenizer_label
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.batteries.reading import Battery
from trainer.batteries.sources import find_battery, must_fetch
from trainer.config.defaults import TextCharacters
from trainer.config.presets import with_tokenizer
from trainer.config.settings import Settings
from trainer.config.train_request import RequestDraft, with_family
from trainer.config.validation import merged, parse
from trainer.contracts.base import HttpOrigin, changed, now
from trainer.contracts.batteries import BatteryOptions
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, at_field, field_error, refusal
from trainer.contracts.experiments import (
    TRIGRAM,
    CellKey,
    ExperimentRecord,
    ExperimentRequest,
    ModelOptions,
    PrimaryTest,
)
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.data.corpora import CorpusStore, training_characters
from trainer.data.line_keys import lines_of_corpus
from trainer.data.text import sample_text
from trainer.experiments.ratings_file import read_ratings
from trainer.queue.batteries import Items
from trainer.queue.cost import train_share
from trainer.queue.resolve import preview_training

_ADDED = ("corpus", "validation_corpus", "test_corpus", "label", "seed", "seeds", "resume", "init_from_run_id")
"""Fields of a train request that the experiment sets by itself, or that would differ between languages."""


class Start(NamedTuple):
    """The artifacts that a training starts from."""

    tokenizer_id: str | None = None
    parent_run_id: str | None = None


async def resolve_experiment(
    request: ExperimentRequest,
    corpora: CorpusStore,
    settings: Settings,
    *,
    user_id: int | None,
    http: HttpOrigin | None = None,
) -> tuple[ExperimentRecord, Items]:
    """Check an experiment with all of its corpora and trainings, and read the items of its batteries.

    Raises AppError, having changed nothing.
    """
    _check_parts(request)
    request = _with_full_names(request, corpora)
    passages = request.texts.passages
    names = {code: corpus_of(request, code) for code in request.languages}
    described = {code: await corpora.describe(name, "corpora") for code, name in names.items()}
    folder = "texts.passages"
    texts = {code: await corpora.describe(f"{passages}/{code}", folder) for code in names if passages is not None}
    ratings = None
    if request.ratings is not None:
        ratings = await corpora.describe(request.ratings, "ratings")
        read_ratings(corpora.find(request.ratings, "ratings"))
    await asyncio.to_thread(_check_passages, texts, corpora, LookLedger.of(settings))
    request = await asyncio.to_thread(_with_equal_tokenizers, request, corpora)
    await _check_trainings(request, corpora, settings)
    to_fetch = _names_to_fetch(request, settings)
    stored = {
        code: [name for name in options.batteries if name not in to_fetch.get(code, ())]
        for code, options in request.languages.items()
    }
    batteries: dict[str, list[Battery]] = await asyncio.to_thread(read_batteries, stored, settings)
    infos = {code: tuple(battery.info for battery in of_language) for code, of_language in batteries.items()}
    references = [*described.values(), *texts.values(), *([] if ratings is None else [ratings])]
    contents = [reference.sha256 for reference in references]
    own = [*contents, *(info.sha256 for of_language in infos.values() for info in of_language if info.source is None)]
    contents += [info.sha256 for of_language in infos.values() for info in of_language]
    record = ExperimentRecord(
        experiment_id=request.name,
        user_id=user_id,
        http=http,
        created_at=now(),
        request=request,
        request_hash=_hash(request, own if to_fetch else contents),
        corpora=described,
        passages=texts,
        ratings=ratings,
        batteries=infos,
        to_fetch=to_fetch,
    )
    items = unique_items(batteries)
    if own != contents or to_fetch:
        by_names = _hash(request, own)
        earlier = ExperimentStore(settings.app.artifacts_root).find(_experiment_id(request, by_names))
        if earlier is not None:
            known = earlier.record()
            if to_fetch or known.to_fetch or known.batteries == infos:
                fields: dict[str, object] = {"batteries": known.batteries, "to_fetch": known.to_fetch}
                record, items = changed(record, **fields, request_hash=by_names), tuple(earlier.items())
    return changed(record, experiment_id=_experiment_id(request, record.request_hash)), items


def _check_passages(texts: Mapping[str, CorpusRef], corpora: CorpusStore, looks: LookLedger) -> None:
    """Refuse passages that tell of a locked text."""
    for text in texts.values() if looks.has_locks else ():
        with at_field("texts.passages"):
            looks.check_text(lines_of_corpus(corpora.find(text.name)))


def _experiment_id(request: ExperimentRequest, request_hash: str) -> str:
    return f"{request.name}-{request_hash[:8]}"


def unique_items(batteries: Mapping[str, Sequence[Battery]]) -> Items:
    """Return the items of the batteries of all languages, which may share one."""
    unique = {battery.info.name: battery for of_language in batteries.values() for battery in of_language}
    return tuple(item for battery in unique.values() for item in battery.items)


def read_batteries(names: Mapping[str, Sequence[str]], settings: Settings) -> dict[str, list[Battery]]:
    """Return the batteries of each language that has some, as `find_battery` does.

    Raises AppError with the place of a wrong name.
    """
    found: dict[str, list[Battery]] = {}
    for code, of_language in names.items():
        for name in of_language:
            with _about_batteries(code):
                battery = find_battery(name, BatteryOptions(), settings)
                if not _has_outcomes(battery):
                    raise AppError(ErrorCode.INVALID_INPUT, f"'{name}' has no formulas, so it gives no accuracy.")
            found.setdefault(code, []).append(battery)
    return found


def _names_to_fetch(request: ExperimentRequest, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the batteries of each language that its worker is to fetch; raises as `read_batteries` does."""
    found: dict[str, tuple[str, ...]] = {}
    for code, options in request.languages.items():
        with _about_batteries(code):
            names = tuple(name for name in options.batteries if must_fetch(name, settings))
        if names:
            found[code] = names
    return found


@contextmanager
def _about_batteries(code: str) -> Iterator[None]:
    """Give an error the place of the batteries of a language."""
    try:
        yield
    except AppError as error:
        raise refusal(error.code, FieldProblem.of(f"languages.{code}.batteries", f": {error.message}")) from None


def _has_outcomes(battery: Battery) -> bool:
    return not all(item.conditions for item in battery.items) or any(
        suite.formulas for suite in battery.info.suites.values()
    )


def corpus_of(request: ExperimentRequest, language: str) -> str:
    """Return the name of the corpus of a language."""
    named = request.languages[language].corpus
    return named or (language if request.corpora is None else f"{request.corpora}/{language}")


def _with_full_names(request: ExperimentRequest, corpora: CorpusStore) -> ExperimentRequest:
    """Return the request with the complete names of its corpora."""

    languages = dict(request.languages)
    for code, options in request.languages.items():
        if options.corpus is not None:
            languages[code] = changed(options, corpus=corpora.full_name(options.corpus, f"languages.{code}.corpus"))
    request = changed(request, languages=languages)
    if request.corpora is not None:
        request = changed(request, corpora=corpora.full_name(request.corpora, "corpora"))
    if request.texts.passages is not None:
        passages = corpora.full_name(request.texts.passages, "texts.passages")
        request = changed(request, texts=changed(request.texts, passages=passages))
    return request


def _check_parts(request: ExperimentRequest) -> None:
    texts = request.texts
    if len(request.trained_languages) < 2:
        message = "At least two languages need a model: set `is_trained` to false for fewer of them."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    if texts.passages is None and not texts.held_out:
        message = "names nothing to score: give `passages`, or set `held_out` to true."
        raise field_error(ErrorCode.INVALID_INPUT, "texts", message)
    if request.has_trigram_baseline and TRIGRAM in request.models:
        message = "has the name of the baseline: rename it, or set `has_trigram_baseline` to false."
        raise field_error(ErrorCode.INVALID_INPUT, f"models.{TRIGRAM}", message)
    if request.development is not None:
        for name, model in request.models.items():
            if model.train.get("model_family") == "ngram":
                message = (
                    "is 'ngram', which keeps no checkpoints that `development` could measure: leave out one of them."
                )
                raise field_error(ErrorCode.INVALID_INPUT, f"models.{name}.train.model_family", message)
            if model.train.get("checkpoint_schedule") is None:
                message = "is needed, because `development` measures the checkpoints that a training keeps."
                raise field_error(ErrorCode.INVALID_INPUT, f"models.{name}.train.checkpoint_schedule", message)
    _check_primary_test(request)
    for name, model in request.models.items():
        _check_model(request, model, f"`models.{name}")


def _check_primary_test(request: ExperimentRequest) -> None:
    """Refuse a primary test that the experiment would not compute."""
    test, texts = request.primary_test, request.texts
    kinds = {"passages": texts.passages is not None, "held_out": texts.held_out, "shuffled": texts.shuffled}
    models = [*request.models, *([TRIGRAM] if request.has_trigram_baseline else [])]
    choices: dict[str, tuple[str | None, list[str]]] = {
        "model": (test.model, models),
        "kind": (test.kind, [kind for kind, is_scored in kinds.items() if is_scored]),
        "mode": (test.mode, [*request.modes]),
    }
    for field, (chosen, allowed) in choices.items():
        if chosen is not None and chosen not in allowed:
            message = f"is '{chosen}', but this experiment has: {', '.join(allowed)}."
            raise field_error(ErrorCode.INVALID_INPUT, f"primary_test.{field}", message)
    branches = [*request.family.values()]
    if test.pairs == "across_branches" and len({*branches}) == len(branches):
        message = "is 'across_branches', but no branch has two languages: set `branch`, or 'all'."
        raise field_error(ErrorCode.INVALID_INPUT, "primary_test.pairs", message)
    if test != PrimaryTest() and request.ratings is None:
        message = "needs human ratings: name their file in `ratings`, or leave `primary_test` out."
        raise field_error(ErrorCode.INVALID_INPUT, "primary_test", message)


def _check_model(request: ExperimentRequest, model: ModelOptions, place: str) -> None:
    _refuse_added(model.train, f"{place}.train")
    if model.has_shared_tokenizer and model.train.get("tokenizer_id") is not None:
        message = f"{place}.has_shared_tokenizer` trains a tokenizer: leave out `train.tokenizer_id`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    if model.transfer is not None:
        if model.train.get("model_family") == "ngram":
            message = f"{place}.transfer` is for models with weights: an n-gram model starts from nothing."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        if model.transfer.first not in request.trained_languages:
            trained = ", ".join(request.trained_languages)
            message = f"{place}.transfer.first` must be one of the trained languages: {trained}."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        _refuse_added(model.transfer.train, f"{place}.transfer.train")


def _refuse_added(train: Mapping[str, JsonValue], place: str) -> None:
    for field in _ADDED:
        if field in train:
            message = f"{place}.{field}` is set by the experiment itself: leave it out."
            raise AppError(ErrorCode.INVALID_INPUT, message)


def _with_equal_tokenizers(request: ExperimentRequest, corpora: CorpusStore) -> ExperimentRequest:
    """Return the request with the tokenizers that rules choose: those of the shortest text for all languages."""
    models: dict[str, ModelOptions] = {}
    samples = [sample_text(corpora.find(corpus_of(request, language), "corpora")) for language in request.languages]
    for name, model in request.models.items():
        models[name] = model
        training = training_request(request, CellKey(name, next(iter(request.languages)), request.seeds[0]), Start())
        texts = [training_characters([sample], train_share(training)) for sample in samples]
        shortest = TextCharacters(min(text.total for text in texts), max(text.kinds for text in texts))
        config = with_tokenizer(training, shortest).request.tokenizer
        if config not in (None, training.tokenizer) and not model.has_shared_tokenizer:
            options: dict[str, JsonValue] = config.model_dump(mode="json", exclude_unset=True)
            models[name] = changed(model, train={**model.train, "tokenizer": {"method": config.method, **options}})
    return changed(request, models=models)


async def _check_trainings(request: ExperimentRequest, corpora: CorpusStore, settings: Settings) -> None:
    """Refuse trainings that are wrong by themselves, or that do not fit together."""
    first: EffectiveRequest | None = None
    for model, options in request.models.items():
        if options.has_shared_tokenizer:
            await resolve_tokenizer(shared_tokenizer(request, model), corpora)
        for language in request.languages:
            draft = _draft(request, CellKey(model, language, request.seeds[0]), Start())
            training = draft.request()
            try:
                effective = (await preview_training(training, corpora, settings)).effective
            except AppError as error:
                located = draft.located(error)
                is_named = any(problem.path for problem in located.details)
                raise AppError(
                    located.code, located.message if is_named else f"{model} {language}: {located.message}"
                ) from None
            first = effective if first is None else first
            _check_together(model, effective, first)
            has_test = effective.test_fraction > 0 or effective.test_corpus is not None
            if request.texts.held_out and not has_test:
                message = "is 0: held-out text needs a test split."
                raise field_error(ErrorCode.INVALID_INPUT, f"models.{model}.train.test_fraction", message)
            if effective.test == "locked" and _reads_test(request):
                message = (
                    "is 'locked', but this experiment measures held-out text, which is the test split: give `passages`"
                    " alone, with a development on 'validation', or train on texts whose test split is open."
                )
                raise field_error(ErrorCode.TEST_LOCKED, f"models.{model}.train.test", message)


def _reads_test(request: ExperimentRequest) -> bool:
    """Return True if an experiment measures its models on their test splits."""
    developed = request.development
    is_developed = developed is not None and developed.reads_split and developed.split == "test"
    return request.texts.held_out or request.texts.shuffled or is_developed


def _check_together(model: str, effective: EffectiveRequest, first: EffectiveRequest) -> None:
    """Refuse models whose held-out text would not be the same, or that would read another form of the text."""
    if effective.split_by != "position":
        raise field_error(
            ErrorCode.INVALID_INPUT,
            f"models.{model}.train.split_by",
            f"must be 'position', you gave '{effective.split_by}': then the held-out"
            " text is the same for every model and seed.",
        )
    if effective.test_fraction != first.test_fraction:
        raise field_error(
            ErrorCode.INVALID_INPUT,
            f"models.{model}.train.test_fraction",
            f"is {effective.test_fraction:g}, but {first.test_fraction:g} for"
            " the first model: give all models the same, so that no model is trained on held-out text.",
        )
    if effective.tokenizer.normalization != first.tokenizer.normalization:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The model '{model}' normalizes text differently from the first model: give all tokenizers the same"
            " `normalization`.",
        )


def shared_tokenizer(request: ExperimentRequest, model: str) -> TokenizerTrainRequest:
    """Return the request for the tokenizer that a model's languages share; raises INVALID_INPUT.

    It leaves out the text that the trainings hold out.
    """
    training = training_request(request, CellKey(model, next(iter(request.languages)), request.seeds[0]), Start())
    fields: dict[str, object] = {"method": "char"}
    if training.tokenizer is not None:
        given: dict[str, object] = training.tokenizer.model_dump(mode="json", exclude_unset=True)
        fields |= given
    of_split = {"holdout_fraction", "test_fraction"} | ({"split_by"} & training.model_fields_set)
    split: dict[str, object] = training.model_dump(include=of_split)
    fields |= {**split, "documents": training.documents, "seed": training.split_seed}
    fields["corpora"] = [corpus_of(request, language) for language in request.languages]
    fields["label"] = shared_tokenizer_label(request, model)
    return parse(TokenizerTrainRequest, fields)


def training_request(request: ExperimentRequest, key: CellKey, start: Start) -> TrainRequest:
    """Return the train request of a model, language and seed."""
    return _draft(request, key, start).request()


def _draft(request: ExperimentRequest, key: CellKey, start: Start) -> RequestDraft:
    """Return the fields of a training; without a start also those that need one are left out, to check the others."""
    model = request.models[key.model]
    transfer = model.transfer if model.transfer is None or key.language != model.transfer.first else None
    second_fields = {} if transfer is None else transfer.train
    fields = merged(model.train, second_fields)
    if start.parent_run_id is not None:
        fields.pop("tokenizer", None)
        fields["init_from_run_id"] = start.parent_run_id
    elif start.tokenizer_id is not None:
        fields.pop("tokenizer", None)
        fields["tokenizer_id"] = start.tokenizer_id
    elif transfer is not None:
        fields.pop("freeze_embeddings", None)
    label = f"{request.name} {key.model} {key.language} {key.seed}"
    fields |= {"corpus": corpus_of(request, key.language), "label": label[:64], "seed": key.seed}

    def place(path: str) -> str:
        """Return the path in the plan of a field of the train request."""
        if path in ("", "corpus"):
            return f"languages.{key.language}.corpus" if path else path
        phase = "transfer.train" if path.split(".")[0] in second_fields else "train"
        return f"models.{key.model}.{phase}.{path}"

    return RequestDraft(with_family(fields), place=place)


def _hash(request: ExperimentRequest, contents: list[str]) -> str:
    """Return the SHA-256 of all values that determine the result, without names of corpora.

    `contents` are the hashes of the corpora and batteries.
    """
    unnamed = {code: changed(options, corpus=None) for code, options in request.languages.items()}
    texts = changed(request.texts, passages=None)
    content = changed(request, corpora=None, languages=unnamed, texts=texts, ratings=None)
    fields: dict[str, object] = content.model_dump(mode="json", exclude_defaults=True)
    fields["seeds"] = request.seeds  # also the default, which has been another
    identity: dict[str, object] = {"request": fields, "corpora": contents}
    return sha256(to_json(identity)).hexdigest()
