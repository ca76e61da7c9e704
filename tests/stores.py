"""The offline store of a deployment, for tests that look into it."""

from collections.abc import Mapping

from stillwell.storage import ObjectStore, open_store


def root_of(environment: Mapping[str, str]) -> str:
    """Where everything of a deployment's namespace lies. environment: its settings, as variables."""
    names = ("STILLWELL_OFFLINE_URL", "STILLWELL_PROJECT", "STILLWELL_NAMESPACE")
    return "/".join(environment[name] for name in names)


def store_of(environment: Mapping[str, str]) -> ObjectStore:
    """The store that its workers open."""
    return open_store(root_of(environment))
