"""The page on the registry is true: every field, the bytes of a document, what its digest covers."""

import hashlib
import json
import pathlib
import re
from datetime import timedelta
from typing import Any

import pytest

from stillwell.definitions.behaviour import Behaviour, Column, Outcome, Row
from stillwell.known_views import registered_versions
from stillwell.registry import Source, ViewDocument, register, registered
from stillwell.testing.objects import MemoryStore
from tests.unit.test_format_pages import blocks, first_column
from tests.unit.test_registry import GRACE, Late, definitions

PAGE = (pathlib.Path(__file__).parent.parent.parent / "docs" / "reference" / "registry.md").read_text()
PLACE = "_registry/LastOrder/1.json"


def canonical(value: Any) -> bytes:
    """As the page says."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_the_page_names_every_field() -> None:
    assert sorted(first_column(PAGE, "## A document")) == sorted(ViewDocument.model_fields)
    prose = PAGE[PAGE.index("A **column** has") : PAGE.index("```json")]
    named = set(re.findall(r"`(\w+)`", prose))
    for kind in (Column, Source, Behaviour, Outcome, Row):
        assert kind.model_fields.keys() <= named


def test_the_example_is_a_document() -> None:
    (example,) = blocks(PAGE, "json")
    store = MemoryStore()
    store.objects[PLACE] = canonical(json.loads(example))
    (document,) = registered(store)
    (view,) = registered_versions(store, "LastOrder")
    assert view.ttl == timedelta(days=90)
    assert [(feature.name, feature.type.name) for feature in view.features] == [
        ("amount", "Float64"),
        ("large", "Bool"),
    ]
    assert document.behaviour.outcomes[0].rows[0].features == ((100.5).hex(), True)


def test_documents_are_written_as_the_page_says() -> None:
    store = MemoryStore()
    register(store, definitions(Late.spec), GRACE)
    ((path, written),) = store.objects.items()
    document = json.loads(written)
    assert path == f"_registry/{document['view']}/{document['version']}.json"
    assert written == canonical(document)
    digested = {name: value for name, value in document.items() if name not in ("digest", "source_digest")}
    assert document["digest"] == hashlib.sha256(canonical(digested)).hexdigest()


@pytest.mark.parametrize("field", ["ttl_us", "topic", "behaviour"])
def test_the_digest_covers_what_the_page_says(field: str) -> None:
    (example,) = blocks(PAGE, "json")
    document = json.loads(example)
    digest = document.pop("digest")
    del document["source_digest"]
    assert hashlib.sha256(canonical(document)).hexdigest() == digest
    document[field] = None
    assert hashlib.sha256(canonical(document)).hexdigest() != digest
