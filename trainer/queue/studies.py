"""Checks a study before it starts: draws its settings, resolves each, and refuses a wrong request."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from pydantic import JsonValue
from pydantic_core import to_json

from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.config.studies import drawn, rounds_of, usual_space, with_values
from trainer.config.train_request import CORPORA, RequestDraft, override, with_family
from trainer.config.validation import merged, parse
from trainer.contracts.base import HttpOrigin, changed, job_owner, now
from trainer.contracts.cost import rough_duration
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.contracts.studies import SET_BY_STUDY, StudyRecord, StudyRequest, StudyVariant
from trainer.contracts.training_options import Pace
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import TrainingPreview, preview_training

_OF_TEXT = (*CORPORA, "split_by", "split_seed", "holdout_fraction", "test_fraction", "documents", "objective")
"""Fields that decide what is measured, and must be the same for all settings."""
Allow = Callable[[TrainRequest], Awaitable[TrainRequest]]
"""Returns a request if a person may train it; raises AppError otherwise."""


class _Setting(NamedTuple):
    name: str
    train: Mapping[str, JsonValue]
    place: str
    """The path of its fields in the request, for errors."""


async def resolve_study(
    request: StudyRequest,
    corpora: CorpusStore,
    settings: Settings,
    allow: Allow,
    *,
    user_id: int | None,
    http: HttpOrigin | None = None,
    pace: Pace | None = None,
) -> StudyRecord:
    """Check a study with all of its settings; raises AppError, having changed nothing.

    `pace` is what a worker has measured for trainings that have `minutes`.
    """
    _check_fields(request)
    named = _settings(request)
    first, *others = named or [_Setting("", {}, "train")]
    preview = await _preview(request, first, corpora, settings, allow, pace)
    if named:
        variants = [_variant(1, first, preview)]
        for number, one in enumerate(others, 2):
            found = await _preview(request, one, corpora, settings, allow, pace)
            _check_together(one, found.effective, first, preview.effective)
            variants.append(_variant(number, one, found))
    else:
        variants = _usual(request, preview)
    variants = _different(variants, "settings" if request.settings else "space")
    if request.read_test and preview.effective.test_id is None:
        message = "is 0, so there is no test split: give a share, or `read_test: false`."
        raise field_error(ErrorCode.INVALID_INPUT, "train.test_fraction", message)
    owner, texts = job_owner(user_id, http), preview.effective.hashes_by_field()
    identity = _hash(request, [texts[field] for field in sorted(texts)], owner)
    record = StudyRecord(
        study_id=f"{request.name}-{identity[:8]}",
        user_id=user_id,
        http=http,
        created_at=now(),
        request=request,
        request_hash=identity,
        variants=tuple(variants),
        pace=pace,
    )
    check_budget(record)
    return record


def _check_fields(request: StudyRequest) -> None:
    places: dict[str, Collection[str]] = {"train": request.train, "space": request.space}
    places |= {f"settings.{name}": train for name, train in request.settings.items()}
    for place, fields in places.items():
        for field in SET_BY_STUDY:
            if field in fields:
                message = "is set by the study itself: leave it out."
                raise field_error(ErrorCode.INVALID_INPUT, f"{place}.{field}", message)
    if len(request.settings) == 1:
        raise field_error(ErrorCode.INVALID_INPUT, "settings", "has one setting, so there is nothing to choose.")


def _settings(request: StudyRequest) -> list[_Setting]:
    """Return the settings of the request, given or drawn; empty for the usual space."""
    if request.settings:
        return [_Setting(name, train, f"settings.{name}") for name, train in request.settings.items()]
    found = drawn(request.space, request.variants, request.seed) if request.space else []
    if len(found) == 1:
        raise field_error(ErrorCode.INVALID_INPUT, "space", "has one setting, so there is nothing to choose.")
    return [_Setting(f"v{number}", train, "space") for number, train in enumerate(found, 1)]


async def _preview(
    request: StudyRequest,
    setting: _Setting,
    corpora: CorpusStore,
    settings: Settings,
    allow: Allow,
    pace: Pace | None,
) -> TrainingPreview:
    """Resolve the full training of a setting; raises AppError with the places of wrong fields."""
    fields: dict[str, object] = override(request.train, setting.train)
    fields |= {"test": "locked", "seed": request.seed}

    def place(path: str) -> str:
        """Return the path in the request of a field of the train request."""
        is_own = path.partition(".")[0] in setting.train
        return f"{setting.place if is_own else 'train'}.{path}" if path else ""

    draft = RequestDraft(with_family(fields), place=place)
    training = draft.request()
    try:
        return await preview_training(await allow(training), corpora, settings, pace=pace)
    except AppError as error:
        raise draft.located(error) from None


def _variant(number: int, setting: _Setting, preview: TrainingPreview) -> StudyVariant:
    return StudyVariant(
        number=number,
        name=setting.name,
        train=dict(setting.train),
        request=preview.request,
        effective=preview.effective,
        cost=preview.cost,
        chosen=preview.chosen,
        notes=preview.notes,
    )


def _usual(request: StudyRequest, preview: TrainingPreview) -> list[StudyVariant]:
    """Return the settings around the values that the rules have chosen; raises INVALID_INPUT if they chose none."""
    space = usual_space(preview.effective, preview.chosen, request.variants)
    if not space and isinstance(preview.effective.model, NgramConfig):
        message = "is 'ngram', which has neither a learning rate nor a dropout: give `settings` or a `space`."
        raise field_error(ErrorCode.INVALID_INPUT, "train.model_family", message)
    if not space:
        message = (
            "gives the learning rate and the dropout, so there is nothing to choose: leave one of them out, or give"
            " `settings` or a `space`."
        )
        raise field_error(ErrorCode.INVALID_INPUT, "train", message)
    variants: list[StudyVariant] = []
    for number, train in enumerate(space, 1):
        of_setting = preview._replace(
            request=changed_request(preview.request, train), effective=with_values(preview.effective, train)
        )
        variants.append(_variant(number, _Setting(f"v{number}", train, "train"), of_setting))
    return variants


def changed_request(request: TrainRequest, train: Mapping[str, JsonValue]) -> TrainRequest:
    """Return a train request with other values in some fields."""
    given: dict[str, object] = request.model_dump(mode="json", exclude_unset=True)
    return parse(TrainRequest, merged(given, train))


def _different(variants: Sequence[StudyVariant], field: str) -> list[StudyVariant]:
    """Return the settings that resolve to different trainings, each with the names of those that are equal to it.

    Raises INVALID_INPUT if all are equal.
    """
    alike = dict[str, list[StudyVariant]]()
    for one in variants:
        alike.setdefault(request_hash(one.effective), []).append(one)
    if len(alike) == 1:
        names = ", ".join(f"'{one.name}'" for one in variants)
        message = f"has equal settings only ({names}), so there is nothing to choose: give settings that differ."
        raise field_error(ErrorCode.INVALID_INPUT, field, message)
    return [changed(first, equals=tuple(one.name for one in others)) for first, *others in alike.values()]


def _check_together(
    setting: _Setting, effective: EffectiveRequest, first: _Setting, of_first: EffectiveRequest
) -> None:
    """Refuse a setting whose losses would not be comparable with those of the first one."""
    same_text = all(effective.text_of(split) == of_first.text_of(split) for split in ("validation", "test"))
    is_masked = "masked_lm" in (effective.objective, of_first.objective)
    same_tokens = (
        effective.tokenizer == of_first.tokenizer
        and effective.tokenizer_id == of_first.tokenizer_id
        and effective.mlm_probability == of_first.mlm_probability
    )
    names = setting.name, first.name
    if effective.objective != of_first.objective or (is_masked and not same_tokens):
        message = "'{}' predicts other tokens than '{}', so their losses say nothing about which one is better."
        raise field_error(ErrorCode.INVALID_INPUT, setting.place, message.format(*names))
    if not same_text:
        one: dict[str, object] = effective.model_dump()
        other: dict[str, object] = of_first.model_dump()
        field = next((field for field in _OF_TEXT if one[field] != other[field]), "corpus")
        message = f"'{names[0]}' is measured on another text than '{names[1]}': give both the same `{field}`."
        raise field_error(ErrorCode.INVALID_INPUT, setting.place, message)
    has_form = effective.tokenizer.normalization == of_first.tokenizer.normalization
    if not has_form or effective.documents != of_first.documents:
        field = "documents" if has_form else "normalization"
        message = f"'{names[0]}' reads the text in another form than '{names[1]}': give both the same `{field}`."
        raise field_error(ErrorCode.INVALID_INPUT, setting.place, message)


def check_budget(record: StudyRecord) -> None:
    """Refuse a budget that is not enough for the finalists and the test."""
    asked, last = record.request, record.n_last_runs
    parts = f"{counted(record.n_finalists, 'finalist')} x {counted(asked.seeds, 'seed')}"
    parts += f", and {asked.test_seeds} for the test" if asked.read_test else ""
    fewer = "give more, or fewer `finalists`, `seeds` or `test_seeds`"
    least = last + (record.n_finalists + 1 if rounds_of(record) else 0)
    if asked.runs is not None and asked.runs < least:
        before = f", and at least {least - last} before, to choose the finalists" if least > last else ""
        message = f"is {asked.runs}, but the study needs {counted(last, 'run')} at its end ({parts}){before}: {fewer}."
        raise field_error(ErrorCode.INVALID_INPUT, "runs", message)
    if asked.minutes is None or record.run_seconds is None:
        return
    seconds = last * record.run_seconds
    if seconds > 60 * asked.minutes:
        message = (
            f"is {asked.minutes:g}, but the {counted(last, 'run')} at the end of the study ({parts}) take about"
            f" {rough_duration(seconds)}: {fewer}."
        )
        raise field_error(ErrorCode.INVALID_INPUT, "minutes", message)


def _hash(request: StudyRequest, contents: Sequence[str], owner: int | str | None) -> str:
    """Return the SHA-256 of what determines the result, without names of corpora, and of the owner."""
    train = {name: value for name, value in request.train.items() if name not in CORPORA}
    fields: dict[str, object] = changed(request, train=train).model_dump(mode="json")
    identity: dict[str, object] = {"request": fields, "corpora": contents, "owner": owner}
    return sha256(to_json(identity)).hexdigest()
