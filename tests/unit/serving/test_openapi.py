"""The OpenAPI document: it is on the page, it says of every path what it does, and knows the definitions."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from serving import described, feast
from serving.openapi import ANYTHING, Names, document
from serving.predictions import PredictionPages
from serving.status_pages import openapi_page
from stillwell.predictions.columns import ModelReaders
from stillwell.types import FLOAT32, INT64, STRING, list_of, vector_of
from tests.served import DEFINITIONS, LIMITS, Served


def general(served: Served) -> dict[str, Any]:
    """The document whatever the definitions are."""
    said = {
        ("GET", "/v1/features"): described.features_of_one(ANYTHING),
        ("POST", "/get-online-features"): described.get_online_features(ANYTHING),
        ("POST", "/v1/push"): described.push(ANYTHING),
        ("POST", "/push"): described.feast_push(ANYTHING),
        ("POST", "/write-to-online-store"): described.feast_write(ANYTHING),
    }
    pages = [
        dataclasses.replace(page, described=said[at]) if at in said else page for at, page in served.site.pages.items()
    ]
    pages += PredictionPages(served.features, ModelReaders({}, DEFINITIONS, lambda: 0), lambda: 0).pages()
    pages.sort(key=lambda page: (page.path, page.method))
    return document([*pages, openapi_page([], ANYTHING)], described.schemas(ANYTHING))


async def test_the_page_is_what_the_code_says(served: Served, page: Callable[[str, str], None]) -> None:
    page("reference/openapi.json", json.dumps(general(served), indent=1, ensure_ascii=False) + "\n")


async def test_every_page_that_is_served_is_described(served: Served) -> None:
    for each in served.site.pages.values():
        if each.path == "/v1/predictions" or each.path in feast.NOT_ANSWERED:
            assert each.described is None  # it is refused, and whoever reads the document need not try
            continue
        assert each.described is not None, each.path
        assert "200" in each.described["responses"]


async def test_it_names_the_features_and_keys_that_there_are(served: Served) -> None:
    names = served.features.names
    assert names.features is not None
    assert "Users:amount" in names.features
    schemas = described.schemas(names)
    assert schemas["Entities"]["properties"]["name"]["items"]["type"] == "string"
    assert schemas["Entities"]["required"] == []  # users have one key, places two
    alone = Names.of(
        DEFINITIONS.model_copy(update={"views": DEFINITIONS.views[:1]}), served.features.catalog.keys, LIMITS
    )
    assert alone.required == ("id",)


async def test_what_a_push_is_answered_is_what_it_says(served: Served) -> None:
    await served.put()
    schemas = described.schemas(served.features.names)
    rows = [{"id": 1, "name": "a", "at": "2026-01-01T00:00:00Z"}]
    for mode, schema in (("sync", "Pushed"), ("async", "Accepted")):
        _, answer = await served.post("/v1/push", view="Users", rows=rows, mode=mode)
        assert answer.keys() == schemas[schema]["properties"].keys() == set(schemas[schema]["required"])


def test_a_list_is_an_array_in_a_body_and_in_a_url_json_of_one() -> None:
    columns = {"id": INT64, "tags": list_of(STRING), "taste": vector_of(FLOAT32, 3)}
    names = Names.of(DEFINITIONS, columns, LIMITS)
    properties = names.entities()["properties"]
    assert properties["tags"]["items"] == {"type": "array", "items": {"type": "string"}}
    taste = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    assert properties["taste"]["items"] == taste
    words = {each["name"]: each["schema"] for each in names.entity_words()}
    assert words["taste"] == {"type": "string", "description": "Vector[Float32, 3], as a list in JSON"}
    assert words["id"]["type"] == "integer"
