"""Entities: what features are about."""

from typing import Any, ClassVar, Unpack

from stillwell.definitions.columns import Key
from stillwell.definitions.fields import Declared, declared_fields, refuse_strangers
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.spec import EntitySpec, KeySpec


class EntityWords(CardWords, total=False):
    """What may follow `Entity` in the class statement."""


class Entity:
    """What features are about, known by one or several key fields:

        class Route(Entity, owner="ops"):
            origin: Key[String]
            dest: Key[String]

    A key cannot be null, nor a float: two equal ones could differ in their last bit.
    """

    spec: ClassVar[EntitySpec]

    def __init_subclass__(cls, **words: Unpack[EntityWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, Entity, mistakes)
        check_words(words, EntityWords, mistakes)
        keys = declared_fields(cls, Key, mistakes)
        refuse_strangers(cls, (), "an entity has `Key[…]` fields alone", mistakes)
        if not keys and not mistakes.messages:
            mistakes.add("has no key; write `<name>: Key[String]` for what tells one from another")
        for key in keys:
            _check_key(key, mistakes)
        told = card(cls, words, mistakes)
        mistakes.check()
        cls.spec = EntitySpec(
            name=cls.__name__,
            keys=tuple(KeySpec(name=key.name, type=key.type) for key in sorted(keys, key=lambda key: key.name)),
            **told,
        )


def _check_key(key: Declared[Key[Any]], mistakes: Mistakes) -> None:
    if key.nullable:
        mistakes.add("is a key that may be null; take `| None` away", field=key.name)
    if key.type.element is not None:
        mistakes.add(
            f"is a key of type {key.type.name}, and a key is a single value; give each part of it a key of its own, or "
            "use a String that holds all",
            field=key.name,
        )
    elif not key.type.key_tag:
        mistakes.add(
            f"is a key of type {key.type.name}, of which equal ones may differ in a bit; use an integer or a String",
            field=key.name,
        )
