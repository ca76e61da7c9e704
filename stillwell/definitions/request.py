"""Requests: values that come with a question instead of from the store."""

import dataclasses
from typing import ClassVar, Unpack

from stillwell.definitions.columns import Col, ColumnOptions
from stillwell.definitions.fields import declared_fields, refuse_strangers
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.spec import RequestColumnSpec, RequestSpec


class RequestWords(CardWords, total=False):
    """What may follow `Request` in the class statement."""


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
            if dataclasses.replace(column.field.options, description="") != ColumnOptions():
                problem = "has col(…), but a request's values come by name alone; leave nothing there but description=…"
                mistakes.add(problem, field=column.name)
        told = card(cls, words, mistakes)
        mistakes.check()
        cls.spec = RequestSpec(
            name=cls.__name__,
            columns=tuple(
                RequestColumnSpec(
                    name=column.name,
                    type=column.type,
                    nullable=column.nullable,
                    description=column.field.options.description,
                )
                for column in columns
            ),
            **told,
        )
