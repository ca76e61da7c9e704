"""The names of aliases, which only their modules know."""

from collections.abc import Mapping

from stillwell.definitions.alias import Alias
from stillwell.definitions.references import Reference
from stillwell.spec import AliasSpec


class AliasNames:
    """What aliases are called: before the definitions are loaded, nothing yet."""

    def __init__(self, names: Mapping[Alias, str] | None = None) -> None:
        self._names = names or {}

    def __contains__(self, alias: Alias) -> bool:
        return alias in self._names

    def of(self, alias: Alias) -> str:
        """The alias's name; what expressions call it, where it has none."""
        return self._names.get(alias, alias._qualifier)

    def spec(self, alias: Alias) -> AliasSpec:
        """What the alias says."""
        return alias._named(self.of(alias))


UNNAMED = AliasNames()


def text_of(reference: Reference, names: AliasNames) -> str:
    """A field as requests name it: `Origin:late`."""
    owner = reference.owner
    return f"{names.of(owner) if isinstance(owner, Alias) else owner.__name__}:{reference.field}"
