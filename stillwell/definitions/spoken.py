"""What an alias is called where a person reads it: as its author does, by a variable.

Expressions are made before an alias knows its name, and call it by what it is,
`AirportDepartures[airport=Route.origin].late`. Whoever has written `Origin.late` would not know that again.
"""

import re
import sys
import weakref
from typing import Protocol


class Spoken(Protocol):
    """An alias."""

    _module: str


_made: weakref.WeakValueDictionary[str, Spoken] = weakref.WeakValueDictionary()
"""The latest alias of each qualifier. Definitions that are loaded once more have others."""


def remember(qualifier: str, alias: Spoken) -> None:
    """There is an alias that expressions call so."""
    _made[qualifier] = alias


def name_of(alias: Spoken) -> str:
    """The variable of its module that it is bound to by now; what it is, where there is none."""
    home = sys.modules.get(alias._module)
    bound = (name for name, value in (vars(home) if home else {}).items() if value is alias)
    return next((name for name in bound if not name.startswith("_")), repr(alias))


def as_written(text: str) -> str:
    """A text about expressions, with aliases by their names."""
    for qualifier, alias in list(_made.items()):
        if qualifier in text:
            name = name_of(alias)
            text = re.sub(rf"(?<!\w){re.escape(qualifier)}", lambda _: name, text)  # noqa: B023  # called at once
    return text
