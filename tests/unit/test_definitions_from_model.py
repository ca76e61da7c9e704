"""A topic of a pydantic model has its fields as columns, and nothing that the model asks is left out in silence."""

import enum
import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PastDatetime,
    RootModel,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from stillwell import Bool, Col, DefinitionError, Float64, Int64, String, Timestamp, Topic, col
from stillwell.pipeline import compile_pipeline
from stillwell.spec import TopicSpec
from tests.batches import NOW, records


class Channel(enum.StrEnum):
    """Where an order came from."""

    APP = "app"
    SHOP = "shop"


class Account(BaseModel):
    """Of a bank."""

    model_config = ConfigDict(alias_generator=to_camel)

    bank_code: Annotated[str, StringConstraints(pattern="^[A-Z]{4}$")]
    holder_name: str | None = Field(default=None, max_length=20)


class Payer(BaseModel):
    """Who pays."""

    id: int = Field(gt=0)
    account: Account | None = None


class Item(BaseModel):
    """What was bought."""

    sku: str


class OrderEvent(BaseModel):
    """An order, as the shop's services write it."""

    at: AwareDatetime = Field(ge=datetime(2000, 1, 1, tzinfo=UTC))
    number: StrictInt
    payer: Payer
    amount: Annotated[float, Ge(0), Field(le=1_000_000, description="in euros")]
    currency: Literal["EUR", "USD"]
    channel: Channel | None = None
    level: Literal[1, 2] | None = None
    express: bool = Field(validation_alias="isExpress")
    city: str = Field(validation_alias=AliasPath("to", "city"), pattern="[a-z]")
    items: list[Item]
    total: Decimal
    note: str | None = None

    @field_validator("total", "note")
    @classmethod
    def say_something(cls, value: Any) -> Any:
        """Neither may be empty."""
        if not value:
            raise ValueError("empty")
        return value


class Order(Topic, name="orders", event_time="at", sequence="number", model=OrderEvent, without=("items", "note")):
    payer_id: Col[Int64]
    total: Col[Float64] = col(gt=0)
    shard: Col[String | None] = col(key=True)


GOOD: dict[str, Any] = {
    "at": NOW,
    "number": 1,
    "payer": {"id": 7, "account": {"bankCode": "NRTH", "holderName": "A"}},
    "amount": 20.5,
    "currency": "EUR",
    "channel": "app",
    "level": 2,
    "isExpress": True,
    "to": {"city": "Bonn"},
    "items": [{"sku": "s"}],
    "total": 20.5,
    "note": "soon",
}


def described(spec: TopicSpec) -> dict[str, tuple[str, tuple[str, ...], list[str]]]:
    """Each column's type, path and rules."""
    return {
        each.name: (
            f"{each.type.name}{' | None' if each.nullable else ''}",
            each.path,
            [rule.rule for rule in each.expectations],
        )
        for each in spec.columns
    }


def test_lists_of_a_models_are_lists() -> None:
    class Event(BaseModel):
        at: AwareDatetime
        tags: list[str]
        scores: list[float] | None = None

    class Tagged(Topic, name="tagged", event_time="at", model=Event):
        scores: Col[list[Float64] | None]

    assert described(Tagged.spec) == {
        "at": ("Timestamp", ("at",), []),
        "tags": ("List[String]", ("tags",), []),
        "scores": ("List[Float64] | None", ("scores",), []),
    }


def test_a_models_fields_are_columns_and_the_body_adds_to_them() -> None:
    assert described(Order.spec) == {
        "at": ("Timestamp", ("at",), [">= 2000-01-01 00:00:00+00:00"]),
        "number": ("Int64", ("number",), []),
        "payer_id": ("Int64", ("payer", "id"), ["> 0"]),
        "payer_account_bank_code": ("String | None", ("payer", "account", "bankCode"), ["matches [A-Z]{4}"]),
        "payer_account_holder_name": (
            "String | None",
            ("payer", "account", "holderName"),
            ["matches (?s:.{0,20})"],
        ),
        "amount": ("Float64", ("amount",), [">= 0", "<= 1000000"]),
        "currency": ("String", ("currency",), ["one of EUR, USD"]),
        "channel": ("String | None", ("channel",), ["one of app, shop"]),
        "level": ("Int64 | None", ("level",), ["one of 1, 2"]),
        "express": ("Bool", ("isExpress",), []),
        "city": ("String", ("to", "city"), ["matches (?s:.*)(?:[a-z])(?s:.*)"]),
        "total": ("Float64", ("total",), ["> 0"]),
        "shard": ("String | None", (), []),
    }
    assert next(each.description for each in Order.spec.columns if each.name == "amount") == "in euros"
    assert Order.payer_id.meta.root_names() == ["Order.payer_id"]
    assert getattr(Order, "currency").meta.root_names() == ["Order.currency"]  # noqa: B009  # as type checkers want it


CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "as it is": ({}, True),
    "an optional field that is missing": ({"channel": None, "level": None, "note": "x"}, True),
    "an object that may be missing": ({"payer": {"id": 7}}, True),
    "below a bound": ({"amount": -1}, False),
    "past a bound": ({"amount": 2_000_000}, False),
    "a bound within": ({"payer": {"id": 0}}, False),
    "no such word": ({"currency": "GBP"}, False),
    "no such member": ({"channel": "post"}, False),
    "no such number": ({"level": 3}, False),
    "a pattern that is found nowhere": ({"to": {"city": "BONN"}}, False),
    "a pattern that is found somewhere": ({"to": {"city": "\nBonN\n"}}, True),
    "a pattern of the whole": ({"payer": {"id": 7, "account": {"bankCode": "NRTHX"}}}, False),
    "a text that is too long": ({"payer": {"id": 7, "account": {"bankCode": "NRTH", "holderName": "é" * 21}}}, False),
    "a text that is just long enough": (
        {"payer": {"id": 7, "account": {"bankCode": "NRTH", "holderName": "\n" * 20}}},
        True,
    ),
    "another type": ({"isExpress": []}, False),
    "a time without a zone": ({"at": "2026-01-01T00:00:00"}, False),
    "a time before the bound": ({"at": "1999-01-01T00:00:00Z"}, False),
    "more fields": ({"more": 1}, True),
}


@pytest.mark.parametrize(("change", "fits"), CHANGES.values(), ids=CHANGES)
def test_the_topic_takes_the_records_that_the_model_takes(change: dict[str, Any], fits: bool) -> None:
    import json

    value = {**GOOD, **change}
    outcome = compile_pipeline(Order.spec, []).run(records([json.dumps(value).encode()]))
    assert (outcome.rejects == ()) is fits, outcome.rejects
    try:
        OrderEvent.model_validate_json(json.dumps(value))
    except ValidationError:
        assert not fits
    else:
        assert fits


class Forbidding(BaseModel):
    """Takes nothing else."""

    model_config = ConfigDict(extra="forbid")

    at: datetime
    name: str


def test_a_model_that_forbids_other_fields_makes_a_topic_that_does() -> None:
    class Strict(Topic, name="strict", event_time="at", model=Forbidding):
        pass

    outcome = compile_pipeline(Strict.spec, []).run(records([b'{"at":"2026-01-01T00:00:00Z","name":"a","nmae":"b"}']))
    (reject,) = outcome.rejects
    assert reject.error == (
        "value: expected the fields of its columns alone, got a field 'nmae' as well; did you mean 'name'?"
    )
    (nested,) = compile_pipeline(Strict.spec, []).run(records([b'{"at":"2026-01-01T00:00:00Z","more":{}}'])).rejects
    assert (
        nested.error == "value: expected the fields of its columns alone, got a field 'more' as well; there is at, name"
    )
    assert not Order.spec.closed


def test_a_type_alone_in_the_body_is_the_models_column_and_keeps_what_it_asks() -> None:
    """Type checkers see only what the body says."""

    class Annotated(Topic, name="t", event_time="at", model=OrderEvent, without=("items", "note", "total")):
        amount: Col[Float64]
        city: Col[String] = col(regex="B.*")

    columns = described(Annotated.spec)
    assert columns["amount"] == ("Float64", ("amount",), [">= 0", "<= 1000000"])
    assert columns["city"] == ("String", ("to", "city"), ["matches B.*"]), "redeclared, and from the same place"


def made(model: type[BaseModel], body: dict[str, Any] | None = None, **words: Any) -> TopicSpec:
    """The topic of a model, with annotations in its body."""
    namespace = {"__module__": __name__, "__annotations__": body or {}}
    cls: Any = type("Made", (Topic,), namespace, name="made", event_time="at", model=model, **words)
    spec: TopicSpec = cls.spec
    return spec


def of(annotation: Any, default: Any = ...) -> type[BaseModel]:
    """A model with the field x."""
    fields: dict[str, Any] = {"at": (datetime, ...), "x": (annotation, default)}
    from pydantic import create_model

    return create_model("Event", **fields)


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    at: datetime
    x: int | None = Field(None, alias="X")


class Checked(BaseModel):
    """With validators of its own."""

    at: datetime
    x: int

    @field_validator("x")
    @classmethod
    def is_even(cls, value: int) -> int:
        """Says nothing."""
        return value

    @model_validator(mode="after")
    def adds_up(self) -> "Checked":
        """Says nothing."""
        return self


class Initialised(BaseModel):
    """Looks at itself when it is made."""

    at: datetime

    def model_post_init(self, context: object) -> None:
        """Says nothing."""


class Nesting(BaseModel):
    """Has one with validators within."""

    at: datetime
    inner: Checked


class Tree(BaseModel):
    """Of itself."""

    at: datetime
    child: "Tree | None" = None


class Trimmed(BaseModel):
    """Changes its texts."""

    model_config = ConfigDict(str_strip_whitespace=True, str_max_length=5)

    at: datetime
    x: str


class Loose(Forbidding):
    """Forbids, and has one within that does not."""

    inner: Item


LEAVE = 'leave it out by without=("x",)'
REFUSED: dict[str, tuple[type[BaseModel], dict[str, Any], str]] = {
    "a Decimal": (
        of(Decimal),
        {},
        "Made.x is Event.x of the type Decimal, which no column has: declare it in the body, as `x: Col[String]`, or "
        f"Col[Float64] where producers write a number, or {LEAVE}",
    ),
    "a date": (
        of(date),
        {},
        f"of the type date, which no column has: declare it in the body, as `x: Col[String]`, or {LEAVE}",
    ),
    "a UUID": (of(uuid.UUID), {}, "of the type UUID, which no column has: declare it in the body, as `x: Col[String]`"),
    "bytes": (of(bytes), {}, "as `x: Col[Bytes]`, which is base64, or Col[String]"),
    "a Decimal that may be null": (
        of(Decimal | None, None),
        {},
        f"as `x: Col[String | None]`, or Col[Float64 | None] where producers write a number, or {LEAVE}",
    ),
    "a vector": (
        of(list[float], Field(min_length=16, max_length=16)),
        {},
        f"declare it in the body, as `x: Col[Annotated[list[Float32], Size(16)]]`, or {LEAVE}",
    ),
    "a vector that may be null": (
        of(Annotated[list[float], Field(min_length=16, max_length=16)] | None, None),
        {},
        f"declare it in the body, as `x: Col[Annotated[list[Float32], Size(16)] | None]`, or {LEAVE}",
    ),
    "a list with bounds": (
        of(list[float], Field(min_length=1, max_length=16)),
        {},
        f"declare it in the body, with col(…), or {LEAVE}",
    ),
    "a list of lists": (
        of(list[list[int]]),
        {},
        f"Made.x is Event.x of the type list[list[int]], which no column has: {LEAVE}",
    ),
    "a list of choices": (
        of(list[Literal["a", "b"]]),
        {},
        f"Made.x is Event.x of the type list[Literal['a', 'b']], which no column has: {LEAVE}",
    ),
    "a mapping": (of(dict[str, int]), {}, "of the type dict[str, int], which no column has"),
    "anything": (of(Any), {}, "of the type Any, which no column has"),
    "several types": (of(int | str), {}, "of the type int | str, which no column has"),
    "words and numbers": (of(Literal["a", 1]), {}, "of the type Literal['a', 1], which no column has"),
    "a time by the clock": (of(PastDatetime), {}, "of the type PastDatetime, which no column has"),
    "a default": (
        of(str, "EUR"),
        {},
        "Made.x is Event.x, which asks for the default 'EUR' where it is missing, which is null, and no column can say "
        f"that: declare it in the body, with col(…), or {LEAVE}",
    ),
    "a default that is made": (of(int, Field(default_factory=int)), {}, "asks for a default that is made where"),
    "multiples": (of(int, Field(multiple_of=5)), {}, "which asks for MultipleOf(multiple_of=5), and no column can say"),
    "a text that is changed": (of(Annotated[str, StringConstraints(to_lower=True)]), {}, "asks for to_lower=True, and"),
    "texts that are changed": (Trimmed, {}, "Made.x is Trimmed.x, which asks for str_strip_whitespace=True, and no"),
    "a pattern and a length": (of(str, Field(pattern="a", max_length=5)), {}, "asks for max_length=5, and no column"),
    "a great length": (of(str, Field(max_length=100_000)), {}, "asks for max_length=100000, and no column"),
    "a function": (
        of(Annotated[int, AfterValidator(abs)]),
        {},
        "asks for AfterValidator(func=<built-in function abs>)",
    ),
    "several names": (
        of(int, Field(validation_alias=AliasChoices("x", "y"))),
        {},
        "asks for a field by several names, or in a list, and",
    ),
    "its name beside an alias": (ByName, {}, "asks for a field by several names, or in a list, and"),
    "a pattern with flags": (
        of(str, Field(pattern=re.compile("^[a-z]+$", re.IGNORECASE))),
        {},
        "asks for pattern=re.compile('^[a-z]+$', re.IGNORECASE), and no column can say that",
    ),
    "a model that stands for a value": (
        of(RootModel[int]),
        {},
        f"Made.x is Event.x of the type RootModel[int], which no column has: {LEAVE}",
    ),
    "a place in a list": (of(int, Field(validation_alias=AliasPath("x", 0))), {}, "by several names, or in a list"),
    "a field's validator": (
        Checked,
        {"without": ("adds_up",)},
        "Made.x is Checked.x, which asks for the validator is_even, and no column can say that: declare it",
    ),
    "a model's validator": (
        Checked,
        {"without": ("x",)},
        "Made has a model Checked with the validator adds_up, which is not run on records: say what it asks by col(…), "
        'or in where=…, and do without it, by without=("adds_up",)',
    ),
    "a validator within": (Nesting, {}, 'and do without it, by without=("inner.adds_up",)'),
    "a model that looks at itself": (Initialised, {}, 'by without=("model_post_init",)'),
    "a model within itself": (
        Tree,
        {},
        "Made has a model whose child asks for Tree within itself, which a topic does not look at; leave it out by "
        'without=("child",)',
    ),
    "one that forbids and one that does not": (
        Loose,
        {},
        'Made has a model Loose with extra="forbid", and Item without; let all of them forbid, or none',
    ),
    "one that forbids and is not taken whole": (
        Forbidding,
        {"without": ("name",)},
        'Made has a model Forbidding with extra="forbid", and leaves name out, which would be refused then',
    ),
    "a name to do without that is none": (
        of(int),
        {"without": ("y", "xs")},
        "Made does without 'xs', which Event does not have; did you mean 'x'?",
    ),
    "a text of names": (of(int), {"without": "x"}, "Made has without='x'; write a tuple of names, as without=("),
    "two fields of one name": (
        type("Event", (Nesting,), {"__module__": __name__, "__annotations__": {"inner_at": datetime}}),
        {"without": ("inner.is_even", "inner.adds_up")},
        "Made.inner_at is two fields of Event; leave one out by without=(…,)",
    ),
    "a default of an object": (
        of(Item, Item(sku="a")),
        {},
        "Made has a model whose x asks for the default Item(sku='a') where it is missing, which is null, which a topic",
    ),
}


@pytest.mark.parametrize(("model", "words", "says"), REFUSED.values(), ids=REFUSED)
def test_what_no_column_can_say_is_refused_until_it_is_settled(
    model: type[BaseModel], words: dict[str, Any], says: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        made(model, **words)
    assert [each for each in refused.value.args if says in each], refused.value.args


def test_no_model_and_no_class_of_one_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Made has model=3; give a class that derives from pydantic\.BaseModel"):
        made(3)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"Bare has without=…, but no model=…; give both"):

        class Bare(Topic, name="bare", event_time="at", without=("x",)):
            at: Col[Timestamp]


def test_what_is_redeclared_or_done_without_is_settled() -> None:
    assert described(made(Checked, {"x": Col[Bool]}, without=("adds_up",)))["x"] == ("Bool", ("x",), [])
    assert "x" not in described(made(Checked, without=("x", "adds_up")))
    assert described(made(Checked, without=("is_even", "adds_up")))["x"] == ("Int64", ("x",), [])
    decimal = of(Decimal, Field(validation_alias="X", gt=0))
    assert described(made(decimal, {"x": Col[String]}))["x"] == ("String", ("X",), [])


def test_a_type_alone_settles_nothing_that_the_models_own_type_has_left_open() -> None:
    """It is what type checkers want, and no word about the validator."""
    with pytest.raises(DefinitionError, match="the validator is_even"):
        made(Checked, {"x": Col[Int64]}, without=("adds_up",))
