"""What the pages say of themselves in the OpenAPI document."""

from collections.abc import Mapping
from typing import Final

from serving.arrow import STREAM
from serving.openapi import PROVENANCE, Json, Names, answer, answers, body, one_of, reference
from serving.pushing.bodies import MOST_KEY_CHARACTERS
from stillwell.predictions.freshness import State
from stillwell.predictions.prediction import Refresh
from stillwell.pushing.record import To
from stillwell.pushing.status import PushStatus

_STATUS: Final[Json] = {"type": "string", "enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]}
_FRESHNESS: Final[Json] = {"type": "string", "enum": ["FRESH", "LATE"], "nullable": True}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_AGE: Final[Json] = {"type": "number", "nullable": True, "description": "seconds since the event time"}
_ANY: Final[Json] = {"nullable": True}
_TOKEN: Final[Json] = {"type": "string", "nullable": True, "description": "for `after`; null where nothing was kept"}
_OF_MODEL: Final[Json] = {
    "model": {"type": "string"},
    "version": {"type": "string"},
    "types": {"type": "object", "description": "of the outputs, by name", "additionalProperties": {"type": "string"}},
}
_ERRORS: Final = (400, 404, 408, 413, 415, 422, 500, 503)


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None, **more: object) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


def schemas(names: Names) -> dict[str, Json]:
    """What the descriptions below refer to."""
    wanted, required = names.wanted()
    asked: Json = {"type": "object", "required": ["entities", *required]}
    entities = reference("Entities")
    waits = names.waits()
    more: Json = {
        "after": waits["after"],
        "provenance": PROVENANCE,
        "timeout_ms": {**waits["timeout_ms"], "nullable": True},
    }
    shared: Json = {"status": _STATUS, "event_time": {**_TIME, "nullable": True}, "age_s": _AGE}
    kind: Json = {"type": "string", "description": "the feature's type, as in its definition"}
    return {
        "Entities": names.entities(),
        "FeastRequest": {
            **asked,
            "properties": {**wanted, "entities": entities, "full_feature_names": {"type": "boolean", "default": False}},
        },
        "FeastAnswer": _object(
            {
                "metadata": _object({"feature_names": _list({"type": "string"})}),
                "results": _list(
                    _object({"values": _list(_ANY), "statuses": _list(_STATUS), "event_timestamps": _list(_TIME)})
                ),
            }
        ),
        "FeastError": {"type": "string", "description": "JSON in a text: module, class and message"},
        "FeaturesRequest": {
            **asked,
            "properties": {**wanted, "entities": entities, **more},
            "additionalProperties": False,
        },
        "Feature": _object(
            {
                "type": kind,
                "values": _list(_ANY),
                "statuses": _list(_STATUS),
                "event_times": _list({**_TIME, "nullable": True}),
                "ages_s": _list(_AGE),
                "freshness": _list(_FRESHNESS),
            },
            {"provenance": _list(reference("Provenance"))},
        ),
        "Provenance": _object(
            {
                "topic": {"type": "string"},
                "incarnation": {"type": "integer"},
                "partition": {"type": "integer"},
                "offset": {"type": "integer", "format": "int64"},
                "version": {"type": "integer"},
            },
            nullable=True,
        ),
        "FeaturesAnswer": _object(
            {
                "entities": {"type": "object", "additionalProperties": _list(_ANY)},
                "features": {"type": "object", "additionalProperties": reference("Feature")},
            }
        ),
        "FeatureOfOne": _object(
            {"type": kind, "value": _ANY, **shared, "freshness": _FRESHNESS}, {"provenance": reference("Provenance")}
        ),
        "FeaturesOfOneAnswer": _object(
            {
                "entity": {"type": "object", "additionalProperties": _ANY},
                "features": {"type": "object", "additionalProperties": reference("FeatureOfOne")},
            }
        ),
        "Error": _object(
            {
                "error": _object(
                    {
                        "kind": {"type": "string", "description": "its name in stillwell.errors"},
                        "field": {"type": "string", "nullable": True},
                        "message": {"type": "string"},
                    },
                    {
                        "lag": {"type": "integer", "format": "int64", "description": "records that are still to come"},
                        "behind": {
                            "type": "object",
                            "description": "the same by view and partition",
                            "additionalProperties": {
                                "type": "object",
                                "additionalProperties": {"type": "integer", "format": "int64"},
                            },
                        },
                        "token": {**_TOKEN, "description": "of rows that Kafka has, and Redis has not"},
                    },
                )
            }
        ),
        "State": _object({"status": {"type": "string"}}),
        "Rows": {
            "anyOf": [reference("RowObjects"), reference("RowColumns")],
            "description": "an object for each, or columns of one length by their names",
        },
        "RowObjects": {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": names.limits.push_rows},
        "RowColumns": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {}, "minItems": 1, "maxItems": names.limits.push_rows},
            "minProperties": 1,
        },
        "Accepted": _object({"token": _TOKEN, "accepted": {"type": "integer", "description": "how many rows"}}),
        "Pushed": _object(
            {
                "token": _TOKEN,
                "statuses": _list(
                    {"type": "string", "enum": [each.value for each in PushStatus if each is not PushStatus.ACCEPTED]}
                ),
                "rejects": _list(
                    _object(
                        {
                            "row": {"type": "integer"},
                            "reason": {"type": "string", "description": "the word that dead letters have for it"},
                            "message": {"type": "string"},
                        }
                    )
                ),
            }
        ),
        "Prediction": _object(
            {
                "state": {"type": "string", "enum": [each.value for each in State]},
                "outputs": {"type": "object", "additionalProperties": _ANY, "nullable": True},
                "computed_at": {**_TIME, "nullable": True},
                "read_at": {**_TIME, "nullable": True, "description": "when the inputs of the outputs were read"},
                "age_s": {"type": "number", "nullable": True, "description": "seconds since read_at"},
                "inputs": {
                    "type": "object",
                    "description": "as they are now, by view or alias",
                    "additionalProperties": _object({"event_time": {**_TIME, "nullable": True}, "age_s": _AGE}),
                },
                "refresh": {"type": "string", "enum": [each.value for each in Refresh]},
                "reason": {"type": "string", "nullable": True, "description": "why it failed, or was not tried"},
            }
        ),
    }


def get_online_features(names: Names) -> Json:
    """POST /get-online-features."""
    return {
        "operationId": "getOnlineFeatures",
        "summary": "Features, as Feast's feature server answers",
        "parameters": names.headers(),
        "requestBody": body(reference("FeastRequest")),
        "responses": answers(
            {"200": answer("a column for each key and feature", reference("FeastAnswer"))},
            reference("FeastError"),
            *_ERRORS,
            504,
        ),
    }


def features_of_many() -> Json:
    """POST /v1/features."""
    good = answer("a column for each feature", reference("FeaturesAnswer"))
    good["content"][STREAM] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "readFeatures",
        "summary": "Features of entities, with all that is known of each value",
        "requestBody": body(reference("FeaturesRequest")),
        "responses": answers({"200": good}, reference("Error"), *_ERRORS, 504),
    }


def features_of_one(names: Names) -> Json:
    """GET /v1/features."""
    return {
        "operationId": "readFeaturesOfOne",
        "summary": "Features of one entity",
        "parameters": names.words(),
        "responses": answers(
            {"200": answer("each feature", reference("FeaturesOfOneAnswer"))},
            reference("Error"),
            *(400, 404, 422, 431, 500, 503, 504),
        ),
    }


def push(names: Names) -> Json:
    """POST /v1/push."""
    asked = _object({"view": one_of(names.views), "rows": reference("Rows")}, _HOW, additionalProperties=False)
    return _pushed("push", "Push rows of a view", asked, reference("Error"))


def feast_push(names: Names) -> Json:
    """POST /push."""
    asked = _object({"push_source_name": one_of(names.views), "df": reference("RowColumns")}, {**_HOW, **_FEAST_HOW})
    return _pushed("feastPush", "Push rows, as to Feast", asked, reference("FeastError"))


def feast_write(names: Names) -> Json:
    """POST /write-to-online-store."""
    asked = _object({"feature_view_name": one_of(names.views), "df": reference("RowColumns")}, _FEAST_HOW)
    nothing: Json = {"type": "object", "nullable": True, "maxProperties": 0, "description": "always null"}
    return {
        "operationId": "feastWrite",
        "summary": "Write rows, as to Feast",
        "requestBody": body(asked),
        "responses": answers({"200": answer("they are there", nothing)}, reference("FeastError"), *_ERRORS),
    }


_HOW: Final[Json] = {
    "to": {"type": "string", "enum": [each.value for each in To]},
    "transform_on_write": {"type": "boolean"},
    "mode": {"type": "string", "enum": ["sync", "async"]},
    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": MOST_KEY_CHARACTERS, "nullable": True},
}
_FEAST_HOW: Final[Json] = {"transform_on_write": {"type": "boolean", "nullable": True}}


def _pushed(name: str, summary: str, asked: Json, error: Json) -> Json:
    good = {
        "200": answer("what became of each row", reference("Pushed")),
        "202": answer("Kafka has them", reference("Accepted")),
    }
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": body(asked),
        "responses": answers(good, error, *_ERRORS),
    }


def predictions_of_many(names: Names) -> Json:
    """POST /v1/predictions."""
    asked = _object({"model": one_of(names.models), "entities": reference("Entities")}, additionalProperties=False)
    shown: Json = {"type": "object", "additionalProperties": _list({})}
    good = _object({**_OF_MODEL, "entities": shown, "predictions": _list(reference("Prediction"))})
    return {
        "operationId": "readPredictions",
        "summary": "Predictions of a model for entities",
        "requestBody": body(asked),
        "responses": answers({"200": answer("one for each", good)}, reference("Error"), *_ERRORS),
    }


def predictions_of_one(names: Names) -> Json:
    """GET /v1/predictions."""
    entity: Json = {"type": "object", "additionalProperties": _ANY}
    shown = {**_OF_MODEL, "entity": entity, "prediction": reference("Prediction")}
    return {
        "operationId": "readPredictionOfOne",
        "summary": "The prediction of a model for one entity",
        "parameters": [
            {"name": "model", "in": "query", "required": True, "schema": one_of(names.models)},
            *names.entity_words(),
        ],
        "responses": answers({"200": answer("it", _object(shown))}, reference("Error"), *(400, 404, 422, 500, 503)),
    }


def health() -> Json:
    """GET /health."""
    return {
        "operationId": "health",
        "summary": "Whether features can be read",
        "responses": answers({"200": answer("they can", None)}, reference("FeastError"), 422, 500, 503),
    }


def state(name: str, summary: str, *statuses: int) -> Json:
    """GET /healthz and /readyz."""
    return {
        "operationId": name,
        "summary": summary,
        "responses": answers({"200": answer("yes", reference("State"))}, reference("Error"), *statuses),
    }


def text(name: str, summary: str) -> Json:
    """A page of text."""
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": answer("as Prometheus reads it", {"type": "string"}, "text/plain")},
    }


def itself() -> Json:
    """GET /openapi.json."""
    return {
        "operationId": "openapi",
        "summary": "This document",
        "responses": answers({"200": answer("it", {"type": "object"})}, reference("Error"), 422, 500),
    }
