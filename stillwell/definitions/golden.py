"""Golden examples: records that show a topic's edge cases, each with what must become of it.

They lie beside the definitions, `golden/<Kafka topic>/<edge case>.json`, those that are pushed to a view in
`golden/push/<view>/`, one object each:

    about       a sentence: what the case is
    timestamp   the record's, ISO-8601 with a zone
    key         text, or null (or left out)
    headers     an object of text or null (or left out)
    value       the record's JSON value; null is a record without one. Instead: `text`, the value as it stands, where
                it is not JSON, or `base64`, where it is not text
    rows        for each view that gets rows, a list of them: every key, `event_timestamp` and every feature
    rejects     a list of {"reason", "view" (left out if it is refused for all), "says" (part of the sentence)}

Checked by `check_examples`; their records are also tried on every view of the topic when definitions are loaded, and
what is pushed for a view that stores an on-demand view's features, on that view.
"""

import base64
import datetime
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pydantic

from stillwell.decode import Decoder
from stillwell.definitions.mistakes import did_you_mean
from stillwell.definitions.source import shown_path
from stillwell.errors import DefinitionError
from stillwell.pipeline import Pipeline, compile_pipeline
from stillwell.pushing.on_write import PUSHED
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import head_of
from stillwell.records import Outcome, Records, Reject
from stillwell.spec import DefinitionsSpec, ExampleSpec, ExpectedReject, Spec, TopicSpec, ViewSpec
from stillwell.types import BYTES, TIMESTAMP, FieldType
from stillwell.validate import EventTimes, Expectations

MAX_FUTURE = datetime.timedelta(hours=1)
"""How far past its record's timestamp an example's event time may lie: what a worker allows unless told otherwise."""


class _File(Spec):
    """An example as its file has it."""

    about: str
    timestamp: pydantic.AwareDatetime
    key: str | None = None
    headers: Mapping[str, str | None] = {}
    value: Any = None
    text: str | None = None
    base64: pydantic.Base64Bytes | None = None
    rows: Mapping[str, tuple[Mapping[str, Any], ...]] = {}
    rejects: tuple[ExpectedReject, ...] = ()

    @pydantic.model_validator(mode="after")
    def _one_value(self) -> "_File":
        given = self.model_fields_set & {"value", "text", "base64"}
        if len(given) != 1:
            raise ValueError(f"one of value, text and base64 is needed, got {' and '.join(sorted(given)) or 'none'}")
        return self

    @property
    def bytes(self) -> bytes | None:
        """The record's value."""
        if self.base64 is not None:
            return self.base64
        if self.text is not None:
            return self.text.encode()
        return None if self.value is None else json.dumps(self.value).encode()


def load_examples(
    folder: pathlib.Path, topics: Sequence[TopicSpec], views: Sequence[ViewSpec] = ()
) -> tuple[ExampleSpec, ...]:
    """The examples in a folder, by topic and name; none where there is no such folder.

    Raises DefinitionError with every file that cannot be read, and every one that belongs to no topic, nor to what is
    pushed to a view.
    """
    known = {topic.topic for topic in topics}
    pushed = {f"{PUSHED}{view.name}" for view in views}
    examples: list[ExampleSpec] = []
    mistakes: list[str] = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        shown = shown_path(str(file))
        topic = file.parent.relative_to(folder).as_posix()
        if file.suffix != ".json":
            mistakes.append(f"{shown}: is no example; name it <edge case>.json, or put it elsewhere")
        elif topic.startswith(PUSHED) and topic not in pushed:
            near = did_you_mean(topic, pushed)
            mistakes.append(f"{shown}: is pushed to {topic.removeprefix(PUSHED)!r}, a view that nobody defines{near}")
        elif topic not in known | pushed:
            mistakes.append(
                f"{shown}: belongs to the topic {topic!r}, which nobody defines{did_you_mean(topic, known)}"
            )
        else:
            try:
                examples.append(_example(file, shown, topic))
            except pydantic.ValidationError as error:
                mistakes += [f"{shown}: {_place(each['loc'])}{each['msg']}" for each in error.errors()]
    if mistakes:
        raise DefinitionError(*mistakes)
    return tuple(examples)


def _place(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""


def _example(file: pathlib.Path, shown: str, topic: str) -> ExampleSpec:
    given = _File.model_validate_json(file.read_bytes())
    return ExampleSpec(
        name=file.stem,
        topic=topic,
        file=shown,
        about=given.about,
        timestamp=round(given.timestamp.timestamp() * 1_000),
        key=None if given.key is None else given.key.encode(),
        value=given.bytes,
        headers=tuple((name, None if text is None else text.encode()) for name, text in given.headers.items()),
        rows=given.rows,
        rejects=given.rejects,
    )


def records_of(topic: TopicSpec, examples: Sequence[ExampleSpec]) -> Records:
    """A batch of the topic's examples, in order."""
    chosen = [example for example in examples if example.topic == topic.topic]
    return Records(
        topic=topic.topic,
        partition=0,
        start=0,
        end=len(chosen),
        offsets=np.arange(len(chosen), dtype=np.int64),
        timestamps=np.array([example.timestamp for example in chosen], dtype=np.int64),
        keys=[example.key for example in chosen],
        values=[example.value for example in chosen],
        headers=[example.headers for example in chosen],
    )


def golden_events(topic: TopicSpec, examples: Sequence[ExampleSpec]) -> pl.DataFrame:
    """Those of a topic's examples that can be used, as the decoder gives them. Of what is pushed: raw events alone."""
    if topic.topic.startswith(PUSHED):
        examples = [example for example in examples if _is_raw(example)]
    decoder = Decoder(topic)
    decoded = decoder.decode(records_of(topic, examples)).frame
    met = Expectations(topic, decoder.empty).check(decoded).frame
    return EventTimes(topic, MAX_FUTURE).check(met)[0]


def _is_raw(example: ExampleSpec) -> bool:
    try:
        return head_of(example.headers).transform
    except ValueError:
        return False


def check_examples(definitions: DefinitionsSpec) -> tuple[str, ...]:
    """For each example of which something else becomes than it says, a sentence that begins with its file."""
    return tuple(
        f"{example.file}: {problem}"
        for example in definitions.examples
        for problem in disagreements(example, definitions)
    )


def disagreements(example: ExampleSpec, definitions: DefinitionsSpec) -> tuple[str, ...]:
    """Where what becomes of an example differs from what it says; empty if it agrees."""
    pipeline = _pipeline(example.topic, definitions)
    outcome = pipeline.run(records_of(pipeline.topic.model_copy(update={"topic": example.topic}), [example]))
    strangers = example.rows.keys() - {view.name for view in pipeline.views}
    return (
        *(f"expects rows of {name}, which is no view of {pipeline.topic.name}" for name in sorted(strangers)),
        *_differences_in_rows(example, outcome, pipeline.views),
        *_differences_in_rejects(example, outcome),
    )


def _pipeline(topic: str, definitions: DefinitionsSpec) -> Pipeline | PushPipeline:
    """What becomes of the records that lie in a topic's folder. No project has a part in it."""
    if topic.startswith(PUSHED):
        view = next(view for view in definitions.views if f"{PUSHED}{view.name}" == topic)
        return PushPipeline("", view, max_future=MAX_FUTURE)
    source = next(each for each in definitions.topics if each.topic == topic)
    return compile_pipeline(source, definitions.views_of(source), max_future=MAX_FUTURE)


def _differences_in_rows(example: ExampleSpec, outcome: Outcome, views: Sequence[ViewSpec]) -> Iterator[str]:
    for view, given in zip(views, outcome.rows, strict=True):
        types = {key.name: key.type for key in view.entity.keys}
        types |= {"event_timestamp": TIMESTAMP} | {feature.name: feature.type for feature in view.features}
        try:
            expected = [_row(row, types) for row in example.rows.get(view.name, ())]
        except ValueError as error:
            yield f"has a row of {view.name} that {error}"
            continue
        came = given.frame.select(types.keys()).rows(named=True)
        if expected != came:
            yield f"expects of {view.name} {_shown(expected)}, but gets {_shown(came)}"


def _row(row: Mapping[str, Any], types: Mapping[str, FieldType]) -> dict[str, object]:
    """A row in the types of its view. Raises ValueError, whose message goes on from `a row that`."""
    if row.keys() != types.keys():
        wrong = sorted(row.keys() ^ types.keys())
        raise ValueError(f"has {sorted(row)}, but needs exactly {sorted(types)}: see {', '.join(wrong)}")
    return {name: _value(name, row[name], kind) for name, kind in types.items()}


def _value(name: str, value: Any, kind: FieldType) -> object:
    """A JSON value in the width of its column, so that 0.1 is what a Float32 makes of it."""
    if kind.element is not None and value is not None:
        if not isinstance(value, list) or len(value) != (kind.size or len(value)):
            raise ValueError(f"has {name}={value!r}, which is no {kind.name}")
        return [_element(f"{name}[{at}]", each, kind.element) for at, each in enumerate(value)]
    try:
        if value is not None and kind is TIMESTAMP:
            value = datetime.datetime.fromisoformat(value)
        elif value is not None and kind is BYTES:
            value = base64.b64decode(value, validate=True)
        fitting: object = pl.Series([value], dtype=kind.polars, strict=True)[0]
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"has {name}={value!r}, which is no {kind.name}: {error}") from error
    return fitting


def _element(name: str, value: Any, kind: FieldType) -> object:
    """The same of an element of a list."""
    if value is None:
        raise ValueError(f"has {name} null, and no element of a list is")
    return _value(name, value, kind)


def _differences_in_rejects(example: ExampleSpec, outcome: Outcome) -> Iterator[str]:
    came = list(outcome.rejects)
    for expected in example.rejects:
        match = next((reject for reject in came if _matches(expected, reject)), None)
        if match is None:
            whom = expected.view or "all views"
            yield f"expects to be refused for {whom} as {expected.reason!r} ({expected.says}), but is not"
        else:
            came.remove(match)
    for reject in came:
        yield f"is refused for {reject.view or 'all views'} as {reject.reason!r} ({reject.error}), unexpectedly"


def _matches(expected: ExpectedReject, came: Reject) -> bool:
    return (expected.view, expected.reason) == (came.view, came.reason) and expected.says in came.error


def _shown(rows: Sequence[Mapping[str, object]]) -> str:
    return "; ".join(", ".join(f"{name}={value!r}" for name, value in row.items()) for row in rows) or "no rows"
