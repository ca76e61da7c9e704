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


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What requests may name: everything (None), or what some definitions have. required: the columns that every
    request must have."""

    features: tuple[str, ...] | None
    services: tuple[str, ...] | None
    columns: Mapping[str, FieldType] | None
    required: tuple[str, ...]
    limits: Limits

    @classmethod
    def of(cls, definitions: DefinitionsSpec, columns: Mapping[str, FieldType], limits: Limits) -> "Names":
        """Those of some definitions. columns: all that requests may have."""
        owners: list[ViewSpec | OnDemandSpec] = [*definitions.views, *definitions.on_demand]
        features = [f"{owner.name}:{feature.name}" for owner in owners for feature in owner.features]
        features += [f"{alias.name}:{feature.name}" for alias in definitions.aliases for feature in alias.view.features]
        features += [f"{model.name}:{output.name}" for model in definitions.models for output in model.outputs]
        keys = {tuple(key.name for key in view.entity.keys) for view in definitions.views}
        derived = definitions.aliases or definitions.on_demand or definitions.models
        required = keys.pop() if len(keys) == 1 and not derived else ()
        services = tuple(service.name for service in definitions.services)
        return cls(tuple(features), services, columns, required, limits)

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
                name: {"type": "array", "items": _OF_TYPE[kind.name], "maxItems": self.limits.rows}
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
        service: Json = {"type": "string", "description": "in the place of `features`: a list of them by its name"}
        if self.services:
            service["enum"] = list(self.services)
        return {**properties, "feature_service": service}, []

    def words(self) -> list[Json]:
        """The words of a URL that asks for one entity."""
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
            named: Json = {"type": "string"} | ({"enum": list(self.services)} if self.services else {})
            found.append({"name": "feature_service", "in": "query", "required": False, "schema": named})
        if self.columns is None:
            free: Json = {"type": "object", "additionalProperties": {"type": "string"}}
            found.append(
                {"name": "keys", "in": "query", "required": False, "style": "form", "explode": True, "schema": free}
            )
        for name, kind in (self.columns or {}).items():
            needed = name in self.required
            found.append({"name": name, "in": "query", "required": needed, "schema": _OF_TYPE[kind.name]})
        return found


def reference(schema: str) -> Json:
    """A schema by its name among the components."""
    return {"$ref": f"#/components/schemas/{schema}"}


def body(schema: Json) -> Json:
    """A request's body."""
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def answer(meaning: str, schema: Json | None, type: str = "application/json") -> Json:
    """One answer."""
    return {"description": meaning} | ({} if schema is None else {"content": {type: {"schema": schema}}})


RETRY_AFTER: Final[Json] = {"Retry-After": {"schema": {"type": "string"}, "description": "seconds to wait"}}


def answers(good: Mapping[str, Json], error: Json, *statuses: int) -> Json:
    """The answers of a page: good ones, and errors by their statuses, all in one schema."""
    meanings = {
        400: "the request cannot be read",
        404: "a name that the definitions do not have",
        408: "the body did not come in time",
        413: "the body is too large",
        415: "the body is announced as something other than JSON",
        422: "the request is wrong: which field, and what to do",
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
