"""Requests: values that come with a question instead of from the store."""

from typing import ClassVar, TypedDict, Unpack

from stillwell.definitions.columns import Col, ColumnOptions
from stillwell.definitions.fields import declared_fields, refuse_strangers
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.words import check_class, check_words, description_of
from stillwell.spec import RequestColumnSpec, RequestSpec


class RequestWords(TypedDict, total=False):
    """What may follow `Request` in the class statement: nothing."""


class Request:
    """Values that a request brings for each entity, for on-demand views and models to compute with:

        class Search(Request):
            departs_at: Col[Timestamp]
            seats: Col[Int32 | None]

    A column that may be null can be left out of a request.
    """

    spec: ClassVar[RequestSpec]

    def __init_subclass__(cls, **words: Unpack[RequestWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, Request, mistakes)
        check_words(words, RequestWords, mistakes)
        columns = declared_fields(cls, Col, mistakes)
        refuse_strangers(cls, (), "a request has `Col[…]` fields alone", mistakes)
        if not columns and not mistakes.messages:
            mistakes.add("has no column; write `<name>: Col[Float64]` for what a request brings")
        for column in columns:
            if column.field.options != ColumnOptions():
                mistakes.add("has col(…), but a request's values come by name alone; take it away", field=column.name)
        mistakes.check()
        cls.spec = RequestSpec(
            name=cls.__name__,
            columns=tuple(
                RequestColumnSpec(name=column.name, type=column.type, nullable=column.nullable) for column in columns
            ),
            description=description_of(cls),
        )
