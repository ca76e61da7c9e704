"""A definitions package is loaded by its name, as a whole, wherever it lies; and tells everything that is wrong."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from stillwell.definitions.golden import check_examples
from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError
from stillwell.spec import DefinitionsSpec

IMPORTS = "from datetime import timedelta\nimport polars as pl\nfrom stillwell import *\n"
ENTITIES = IMPORTS + "class Airport(Entity):\n    airport: Key[String]\n"
TOPICS = (
    IMPORTS
    + 'class Departure(Topic, name="flights.departures", event_time="at"):\n'
    + "    at: Col[Timestamp]\n    origin: Col[String]\n    delay: Col[Float32 | None]\n"
)
VIEWS = (
    IMPORTS
    + "from mine.entities import Airport\nfrom mine.topics import Departure\n"
    + 'class Late(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(0)):\n'
    + "    late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False))\n"
)
GOOD = {
    "__init__.py": "",
    "entities.py": ENTITIES,
    "topics.py": TOPICS,
    "deeper/__init__.py": "",
    "deeper/views.py": VIEWS,
}
EVENT = {"at": "2013-01-01T10:00:00Z", "origin": "EWR", "delay": 20}
ROW = {"airport": "EWR", "event_timestamp": "2013-01-01T10:00:00Z", "late": True}
EXAMPLE = {"about": "late", "timestamp": "2013-01-01T10:00:01Z", "value": EVENT, "rows": {"Late": [ROW]}}
REFUSED: dict[str, object] = {"value": EVENT | {"origin": 1}, "rows": {}}
CASE = "golden/flights.departures/late.json"

Write = Callable[[Mapping[str, str]], None]


@pytest.fixture
def write(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the files of a package `mine` into the working directory."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def write(files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mine" / name).write_text(text)

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] in ("mine", "streams_of_mine")]:
        del sys.modules[name]


def names(definitions: DefinitionsSpec) -> tuple[list[str], list[str], list[str]]:
    return (
        [entity.name for entity in definitions.entities],
        [topic.name for topic in definitions.topics],
        [view.name for view in definitions.views],
    )


def mistakes(name: str = "mine") -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as raised:
        load_definitions(name)
    return raised.value.args


def test_a_package_in_the_working_directory_is_loaded_with_everything_below_it(write: Write) -> None:
    write(GOOD)
    definitions = load_definitions("mine")
    assert names(definitions) == (["Airport"], ["Departure"], ["Late"])
    assert definitions.views_of(definitions.topics[0]) == definitions.views


def test_a_single_module_is_a_definitions_package_too(write: Write, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.py").write_text(ENTITIES + TOPICS)
    assert names(load_definitions("mine")) == (["Airport"], ["Departure"], [])


def test_what_a_view_refers_to_elsewhere_belongs_to_the_definitions(write: Write, tmp_path: pathlib.Path) -> None:
    """Another team's entities and topics may lie in a package of their own."""
    (tmp_path / "streams_of_mine.py").write_text(ENTITIES + TOPICS)
    view = VIEWS.replace("mine.entities", "streams_of_mine").replace("mine.topics", "streams_of_mine")
    write({"__init__.py": view})
    assert names(load_definitions("mine")) == (["Airport"], ["Departure"], ["Late"])


def test_the_working_directory_hides_nothing_that_is_installed(write: Write, tmp_path: pathlib.Path) -> None:
    """A folder called `stillwell`, `streams` or `polars` beside the definitions does no harm."""
    (tmp_path / "json.py").write_text("raise RuntimeError('this is not the library')")
    write(GOOD)
    load_definitions("mine")
    assert sys.path[-1] == str(tmp_path)
    assert json.loads("1") == 1


def test_a_name_that_is_no_package_is_told_with_the_nearest(write: Write, tmp_path: pathlib.Path) -> None:
    write(GOOD)
    (message,) = mistakes("mien")
    assert message.startswith("STILLWELL_DEFINITIONS is 'mien', but there is no such package")
    assert message.endswith(f"installed or in {tmp_path}; did you mean 'mine'?")


def test_a_package_without_topics_is_refused(write: Write) -> None:
    write({"__init__.py": ENTITIES})
    assert mistakes() == ("mine defines no topic; write a class that derives from stillwell.Topic",)


def test_mistakes_of_all_modules_are_told_at_once_each_one_time(write: Write) -> None:
    """views.py imports topics.py, so that what is wrong with the latter comes up twice."""
    write(
        GOOD
        | {"entities.py": ENTITIES.replace("String", "Float64"), "topics.py": TOPICS.replace("Bool", "Boo") + "  x"}
    )
    found = mistakes()
    assert len(found) == 2, found
    assert found[0].startswith("mine/entities.py:5: Airport.airport is a key of type Float64")
    assert found[1].startswith("mine/topics.py:8: IndentationError")


def test_an_exception_of_a_module_is_told_with_its_line(write: Write) -> None:
    write(GOOD | {"topics.py": TOPICS + "def _helper():\n    return 1 / 0\n_helper()\n"})
    assert mistakes()[0] == "mine/topics.py:9: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("broken", ["1 / 0\n", "import nothing_of_the_kind\n"])
def test_a_package_below_that_cannot_be_imported_is_told_beside_the_others(write: Write, broken: str) -> None:
    write(GOOD | {"deeper/__init__.py": broken, "entities.py": ENTITIES.replace("String", "Float64")})
    found = mistakes()
    assert [message.split(": ")[0] for message in found] == ["mine/deeper/__init__.py:1", "mine/entities.py:5"]


def test_a_package_without_an_init_file_has_examples_too(write: Write) -> None:
    files = {"entities.py": ENTITIES, "topics.py": TOPICS, "views.py": VIEWS, CASE: json.dumps(EXAMPLE)}
    write(files)
    definitions = load_definitions("mine")
    assert names(definitions) == (["Airport"], ["Departure"], ["Late"])
    assert len(definitions.examples) == 1


def test_an_import_that_fails_is_told_with_its_line(write: Write) -> None:
    write({"__init__.py": "import nothing_of_the_kind\n"})
    assert mistakes() == ("mine/__init__.py:1: ModuleNotFoundError: No module named 'nothing_of_the_kind'",)


def test_two_definitions_of_one_name_are_refused_whatever_their_kinds(write: Write) -> None:
    write(GOOD | {"more.py": IMPORTS + "class departure(Entity):\n    a: Key[String]\n"})
    (message,) = mistakes()
    assert "Departure has the name of departure in mine/more.py:4; rename one" in message


def test_two_topics_of_one_kafka_topic_are_refused(write: Write) -> None:
    write(GOOD | {"more.py": TOPICS.replace("Departure", "Gate")})
    (message,) = mistakes()
    assert message.startswith("mine/topics.py:4: Departure reads Kafka's topic flights.departures, as does Gate in")


def test_a_view_that_is_not_row_local_is_refused_by_its_feature(write: Write) -> None:
    write(GOOD | {"deeper/views.py": VIEWS.replace("> 15", "> Departure.delay.mean()")})
    (message,) = mistakes()
    assert message.startswith("mine/deeper/views.py:7: Late.late gives")


HELPER = "LIMIT = 15\ndef _late(delay):\n    return delay > LIMIT\n"
UNUSED = "def _unused():\n    return 1\n"


@pytest.mark.parametrize(
    ("views", "differs"),
    [
        (lambda views: views.replace("feature(", "feature(  # what counts as late\n"), False),
        (lambda views: views.replace("    late:", '    """Which are late."""\n    late:'), False),
        (lambda views: views.replace("late(Departure.delay)", "late( Departure.delay )"), False),
        (lambda views: views.replace("(False))", '(False), description="over the limit")'), False),
        (lambda views: views.replace("class Late(View,", "class Late(View, owner='ops', tags={'tier': '1'},"), False),
        (lambda views: views.replace("class Late(View,", "class Late(View, version=1,"), True),
        (lambda views: views.replace(HELPER, HELPER + UNUSED), False),
        (lambda views: views.replace("LIMIT = 15", "LIMIT = 15.0"), True),
        (lambda views: views.replace("delay > LIMIT", "LIMIT < delay"), True),
        (lambda views: views.replace("(False)", "(value=False)"), True),
    ],
    ids=[
        "a comment",
        "a docstring",
        "layout",
        "a description",
        "an owner and tags",
        "a version",
        "what it does not use",
        "a constant",
        "a helper",
        "itself",
    ],
)
def test_the_source_digest_tells_what_is_said_of_a_view_and_not_how(
    write: Write, views: Callable[[str], str], differs: bool
) -> None:
    plain = VIEWS.replace("class Late", HELPER + "class Late").replace(
        "(Departure.delay > 15)", "_late(Departure.delay)"
    )
    write(GOOD | {"deeper/views.py": plain})
    before = load_definitions("mine").views[0].source_digest
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]
    write({"deeper/views.py": views(plain)})
    after = load_definitions("mine").views[0].source_digest
    assert len(before) == 64
    assert views(plain) != plain
    assert (before != after) is differs


def test_golden_examples_are_loaded_and_agree(write: Write) -> None:
    write(GOOD | {CASE: json.dumps(EXAMPLE)})
    definitions = load_definitions("mine")
    assert [(example.name, example.topic) for example in definitions.examples] == [("late", "flights.departures")]
    assert check_examples(definitions) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": {"Late": [ROW | {"late": False}]}}, "expects of Late airport='EWR'"),
        ({"rows": {}}, "expects of Late no rows, but gets"),
        ({"rows": {"Late": [ROW, ROW]}}, "expects of Late"),
        ({"rows": {"Lat": [ROW]}}, "expects rows of Lat, which is no view of Departure"),
        ({"rows": {"Late": [{"airport": "EWR"}]}}, "has a row of Late that has ['airport'], but needs exactly"),
        ({"rows": {"Late": [ROW | {"late": "yes"}]}}, "has a row of Late that has late='yes', which is no Bool"),
        ({"rejects": [{"reason": "decode"}]}, "expects to be refused for all views as 'decode'"),
        ({"value": EVENT | {"origin": 1}, "rows": {}}, "is refused for all views as 'decode'"),
        (REFUSED | {"rejects": [{"reason": "decode", "says": "delay"}]}, "as 'decode' (delay), but is not"),
        (REFUSED | {"rejects": [{"reason": "decode", "view": "Late"}]}, "to be refused for Late as 'decode'"),
    ],
    ids=[
        "another value",
        "no rows",
        "too many",
        "no view",
        "missing fields",
        "another type",
        "no reject",
        "a reject",
        "a sentence",
        "a view",
    ],
)
def test_an_example_of_which_something_else_becomes_is_told(write: Write, change: dict[str, object], says: str) -> None:
    write(GOOD | {CASE: json.dumps(EXAMPLE | change)})
    found = check_examples(load_definitions("mine"))
    assert found, "nothing was found"
    assert found[0].startswith(f"mine/{CASE}: ")
    assert says in found[0]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "golden/flights.departure/late.json",
            "{}",
            "the topic 'flights.departure', which nobody defines; did you",
        ),
        ("golden/flights.departures/late.txt", "", "is no example; name it <edge case>.json"),
        (CASE, "{", "Invalid JSON"),
        (CASE, json.dumps(EXAMPLE | {"valeu": 1}), "valeu: Extra inputs"),
        (CASE, json.dumps(EXAMPLE | {"text": "{}"}), "one of value, text and base64 is needed, got text and value"),
        (CASE, json.dumps(EXAMPLE | {"timestamp": "2013-01-01T10:00:01"}), "timestamp: "),
    ],
    ids=["orphan", "another file", "no JSON", "unknown word", "two values", "no zone"],
)
def test_an_example_that_cannot_be_read_or_belongs_nowhere_is_refused(
    write: Write, file: str, text: str, says: str
) -> None:
    write(GOOD | {file: text})
    (message,) = mistakes()
    assert message.startswith(f"mine/{file}: ")
    assert says in message


def test_an_example_tries_what_no_made_up_event_would(write: Write) -> None:
    """What happens to texts of eleven bytes is found by the one example that has one."""
    rare = "pl.when(Departure.origin.str.len_bytes() == 11).then(Departure.delay.max() > 1).otherwise(True)"
    write(GOOD | {"deeper/views.py": VIEWS.replace("Departure.delay > 15", rare)})
    load_definitions("mine")
    sys.modules.pop("mine")
    write({CASE: json.dumps(EXAMPLE | {"value": EVENT | {"origin": "eleven long"}})})
    (message,) = mistakes()
    assert "Late.late gives" in message
    assert "Departure.origin='eleven long'" in message


def test_a_definition_that_another_one_of_its_name_replaces_is_told_before_anything_else(write: Write) -> None:
    """A class or a field that was copied and not renamed: Python keeps the second, and says nothing of the first."""
    twice = VIEWS + VIEWS.splitlines()[-2] + "\n    late: Feature[Bool] = feature(Departure.delay > 30)\n"
    column = TOPICS + "    delay: Col[Int64]\n"
    write(GOOD | {"deeper/views.py": twice, "topics.py": column})
    line = len(VIEWS.splitlines())
    assert mistakes() == (
        f"mine/deeper/views.py:{line + 1}: Late stands in line {line - 1} already, and only this one would count; "
        "rename one, or take it out",
        "mine/topics.py:8: Departure.delay stands in line 7 already, and only this one would count; rename one, or "
        "take it out",
    )


def test_a_name_that_is_defined_once_in_each_of_two_branches_is_none_twice(write: Write) -> None:
    write(GOOD | {"entities.py": ENTITIES + "if True:\n    LIMIT: int = 1\nelse:\n    LIMIT: int = 2\n"})
    assert names(load_definitions("mine"))[2] == ["Late"]


LISTS = """
from datetime import timedelta
from typing import Annotated

from stillwell import Col, Entity, Feature, Float32, Key, Size, String, Timestamp, Topic, View, feature


class Shop(Entity):
    shop: Key[String]


class Basket(Topic, name="shop.baskets", event_time="at"):
    at: Col[Timestamp]
    shop: Col[String]
    items: Col[list[String]]
    taste: Col[Annotated[list[Float32], Size(2)]]
    times: Col[list[Timestamp] | None]


class Baskets(View, source=Basket, entity=Shop, keys={"shop": Basket.shop}, ttl=timedelta(0)):
    items: Feature[list[String]] = feature(Basket.items.list.sort())
    taste: Feature[Annotated[list[Float32], Size(2)]] = feature(Basket.taste)
    times: Feature[list[Timestamp] | None] = feature(Basket.times)
"""
BASKET = {
    "at": "2013-01-01T10:00:00Z",
    "shop": "a",
    "items": ["tea", "ale"],
    "taste": [0.1, 2],
    "times": ["2013-01-01T11:00:00+01:00"],
}
OF_BASKET = {
    "shop": "a",
    "event_timestamp": "2013-01-01T10:00:00Z",
    "items": ["ale", "tea"],
    "taste": [0.1, 2],
    "times": ["2013-01-01T10:00:00Z"],
}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, None),
        ({"items": ["tea", "ale"]}, "expects of Baskets shop='a'"),
        ({"taste": [0.1]}, "has taste=[0.1], which is no Vector[Float32, 2]"),
        ({"items": "ale"}, "has items='ale', which is no List[String]"),
        ({"items": ["ale", None]}, "has items[1] null, and no element of a list is"),
        ({"items": ["ale", 1]}, "has items[1]=1, which is no String"),
        ({"times": ["2013"]}, "has times[0]='2013', which is no Timestamp"),
        ({"times": None}, "expects of Baskets shop='a'"),
    ],
)
def test_a_golden_example_has_lists_in_json(write: Write, row: dict[str, object], says: str | None) -> None:
    example = {
        "about": "a",
        "timestamp": "2013-01-01T10:00:01Z",
        "value": BASKET,
        "rows": {"Baskets": [OF_BASKET | row]},
    }
    write({"__init__.py": LISTS, "golden/shop.baskets/a.json": json.dumps(example)})
    problems = check_examples(load_definitions("mine"))
    if says is None:
        assert problems == ()
    else:
        (problem,) = problems
        assert says in problem
