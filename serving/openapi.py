"""The OpenAPI document: what can be asked of the service, for people, generated clients and fuzzers.

It is put together from what each page says of itself (`Page.described`), so that a path stands beside its handler. As
it is served it knows the definitions: which features there are, and of which type each key is. What
`docs/reference/openapi.json` holds is the same for any definitions.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from serving.limits import Limits
from serving.web import Page
from stillwell.pushing.token import token_pattern
from stillwell.reading.after import MOST_TIMEOUT_MS, MOST_TOKENS
from stillwell.spec import DefinitionsSpec, OnDemandSpec, ViewSpec
from stillwell.types import FieldType

Json = dict[str, Any]

_OF_TYPE: Final[Mapping[str, Json]] = {
    "Bool": {"type": "boolean"},
    "Int32": {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    "Int64": {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    "Float32": {"type": "number"},
    "Float64": {"type": "number"},
    "String": {"type": "string"},
    "Bytes": {"type": "string", "format": "byte"},
    "Timestamp": {"type": "string", "format": "date-time"},
}


def schema_of(kind: FieldType) -> Json:
    """A value of a type in JSON."""
    if kind.element is None:
        return _OF_TYPE[kind.name]
    listed: Json = {"type": "array", "items": _OF_TYPE[kind.element.name]}
    return listed if kind.size is None else {**listed, "minItems": kind.size, "maxItems": kind.size}


def _in_a_url(kind: FieldType) -> Json:
    """The same as a word of a URL, where a list is a text. (Not `content` in the place of a schema, which OpenAPI has
    for it: clients look for a schema.)"""
    if kind.element is None:
        return schema_of(kind)
    return {"type": "string", "description": f"{kind.name}, as a list in JSON"}


_TIMEOUT_MS: Final = f"^([0-9]{{1,4}}|[1-5][0-9]{{4}}|{MOST_TIMEOUT_MS})?$"
"""From 0 to MOST_TIMEOUT_MS, which has five digits and begins with a six."""


PROVENANCE: Final[Json] = {"type": "boolean", "description": "say of each value which record it was made of"}


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What requests may name: everything (None), or what some definitions have. required: the columns that every
    request must have; views: what can be pushed to."""

    features: tuple[str, ...] | None
    services: tuple[str, ...] | None
    columns: Mapping[str, FieldType] | None
    required: tuple[str, ...]
    limits: Limits
    views: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None

    @classmethod
    def of(cls, definitions: DefinitionsSpec, columns: Mapping[str, FieldType], limits: Limits) -> "Names":
        """Those of some definitions. columns: all that requests may have."""
        owners: list[ViewSpec | OnDemandSpec] = [*definitions.views, *definitions.on_demand]
        features = [f"{owner.name}:{feature.name}" for owner in owners for feature in owner.features]
        features += [f"{alias.name}:{feature.name}" for alias in definitions.aliases for feature in alias.view.features]
        features += [f"{model.name}:{output.name}" for model in definitions.models for output in model.outputs]
        entities = {view.entity for view in definitions.views} | {model.entity for model in definitions.models}
        keys = {tuple(key.name for key in entity.keys) for entity in entities}
        elsewhere = definitions.aliases or definitions.on_demand
        required = keys.pop() if len(keys) == 1 and not elsewhere else ()
        services = tuple(service.name for service in definitions.services)
        views = tuple(view.name for view in definitions.views)
        models = tuple(model.name for model in definitions.models)
        return cls(tuple(features), services, columns, required, limits, views, models)

    def feature_list(self) -> Json:
        """A list of features."""
        item: Json = {"type": "string", "pattern": "^[^:,]+:[^:,]+$"}
        if self.features is not None:
            item = {"type": "string", "enum": list(self.features)}
        most = self.limits.features if self.features is None else min(self.limits.features, len(self.features))
        return {"type": "array", "items": item, "minItems": 1, "maxItems": most, "uniqueItems": True}

    def entities(self) -> Json:
        """The entities of a request."""
        if self.columns is None:
            column: Json = {"type": "array", "items": {}, "maxItems": self.limits.rows}
            return {"type": "object", "additionalProperties": column}
        return {
            "type": "object",
            "properties": {
                name: {"type": "array", "items": schema_of(kind), "maxItems": self.limits.rows}
                for name, kind in self.columns.items()
            },
            "required": list(self.required),
            "additionalProperties": False,
        }

    def wanted(self) -> tuple[Json, list[str]]:
        """How a body says which features it wants: properties, and which of them are required."""
        properties: Json = {"features": self.feature_list()}
        if self.services == ():
            return properties, ["features"]
        service = {**one_of(self.services), "description": "in the place of `features`: a list of them by its name"}
        return {**properties, "feature_service": service}, []

    def words(self) -> list[Json]:
        """The words of a URL that asks for features of one entity."""
        found: list[Json] = [
            {
                "name": "features",
                "in": "query",
                "required": self.services == (),
                "style": "form",
                "explode": False,
                "schema": self.feature_list(),
            }
        ]
        if self.services != ():
            service = one_of(self.services)
            found.append({"name": "feature_service", "in": "query", "required": False, "schema": service})
        waits = self.waits()
        more = {**waits, "provenance": PROVENANCE}
        found += [{"name": name, "in": "query", "required": False, "schema": more[name]} for name in more]
        return [*found, *self.entity_words()]

    def entity_words(self) -> list[Json]:
        """The words of a URL that say which entity."""
        if self.columns is None:
            free: Json = {"type": "object", "additionalProperties": {"type": "string"}}
            return [
                {"name": "keys", "in": "query", "required": False, "style": "form", "explode": True, "schema": free}
            ]
        return [
            {"name": name, "in": "query", "required": name in self.required, "schema": _in_a_url(kind)}
            for name, kind in self.columns.items()
        ]

    def waits(self) -> dict[str, Json]:
        """What a read says that comes behind a push."""
        token = token_pattern(self.views)
        return {
            "after": {
                "type": "string",
                "pattern": f"^({token}( {token}){{0,{MOST_TOKENS - 1}}})?$",
                "description": "tokens of pushes, as they were returned, with spaces between",
            },
            "timeout_ms": {
                "type": "integer",
                "minimum": 0,
                "maximum": MOST_TIMEOUT_MS,
                "description": "how long to wait until what the tokens name can be read",
            },
        }

    def headers(self) -> list[Json]:
        """The same as headers, where a body has no place for it."""
        waits = self.waits()
        # A header is text, and a fuzzer would take a number there for one that is not.
        timeout = {"type": "string", "pattern": _TIMEOUT_MS, "description": waits["timeout_ms"]["description"]}
        named = {"Stillwell-After": waits["after"], "Stillwell-Timeout-Ms": timeout}
        return [{"name": name, "in": "header", "required": False, "schema": each} for name, each in named.items()]


ANYTHING: Final = Names(None, None, None, (), Limits(rows=1_000, features=500, values=100_000))
"""Whatever the definitions are, and with the limits of the settings' defaults."""


def one_of(names: tuple[str, ...] | None) -> Json:
    """A name: one of these, or any."""
    return {"type": "string"} if names is None else {"type": "string", "enum": list(names)}


def reference(schema: str) -> Json:
    """A schema by its name among the components."""
    return {"$ref": f"#/components/schemas/{schema}"}


def body(schema: Json) -> Json:
    """A request's body."""
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def answer(meaning: str, schema: Json | None, type: str = "application/json") -> Json:
    """One answer."""
    return {"description": meaning} | ({} if schema is None else {"content": {type: {"schema": schema}}})


RETRY_AFTER: Final[Json] = {
    "Retry-After": {"required": True, "schema": {"type": "string"}, "description": "seconds to wait"}
}


def answers(good: Mapping[str, Json], error: Json, *statuses: int) -> Json:
    """The answers of a page: good ones, and errors by their statuses, all in one schema."""
    meanings = {
        400: "the request cannot be read",
        404: "a name that the definitions do not have",
        408: "the body did not come in time",
        413: "the body is too large",
        415: "the body is announced as something other than JSON, or compressed in another way than gzip or deflate",
        422: "the request is wrong: which field, and what to do",
        431: "the URL and the headers are too long",
        500: "a row cannot be read, or Stillwell made a mistake",
        503: "the store does not answer, or may have lost rows; or there are too many requests",
        504: "what was pushed is not there in time",
    }
    errors = {str(status): answer(meanings[status], error) for status in statuses}
    if "503" in errors:
        errors["503"]["headers"] = RETRY_AFTER
    return {**good, **errors}


def document(pages: Iterable[Page], schemas: Mapping[str, Json]) -> Json:
    """The whole. schemas: what the pages' descriptions refer to by name."""
    paths: dict[str, Json] = {}
    for page in pages:
        if page.described is not None:
            paths.setdefault(page.path, {})[page.method.lower()] = dict(page.described)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Stillwell's query service",
            "description": "Features as they stand now. docs/reference/serving.md says more.",
            "version": version("stillwell"),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items()))},
    }
