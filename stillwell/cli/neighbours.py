"""Which entities have a row, told to who asks for one that has none: mostly the key was written otherwise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stillwell.cli.values import shown

if TYPE_CHECKING:
    from stillwell.settings import Settings
    from stillwell.spec import ViewSpec

_MOST = 3
"""Entities that are named."""

_STEPS, _KEYS_A_STEP = 20, 1_000
"""How far is looked: a store may hold millions of keys, and each step holds up its other clients for a moment."""

_PATIENCE_S = 1.0


def tell_neighbours(settings: "Settings", view: "ViewSpec") -> str:
    """A sentence on entities that have a row of a view; '' where nothing is known of any."""
    found = _neighbours(settings, view)
    if found is None:
        return ""
    if not found:
        return (
            f"{view.name} has no row of any entity in the namespace {settings.namespace} of {settings.project}; "
            f"`stillwell try {view.name}` shows what the records of its topic give"
        )
    named = "; ".join(", ".join(f"{name}={shown(value)}" for name, value in each.items()) for each in found)
    return f"others have one, such as {named}"


def _neighbours(settings: "Settings", view: "ViewSpec") -> list[Mapping[str, object]] | None:
    """Some entities that have a row; none, if it is known that there are none; None, if nothing is known."""
    import redis

    from stillwell.layout.entity_key import values_of
    from stillwell.layout.redis_keys import RedisKeys

    keys = RedisKeys(settings.project, settings.namespace)
    suffix = keys.suffix(view.name)
    found: list[Mapping[str, object]] = []
    url, cursor = settings.redis_url.get_secret_value(), 0
    try:
        with redis.Redis.from_url(url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S) as client:
            for _ in range(_STEPS):
                cursor, some = client.scan(cursor, match=b"%bf:{*}:*%b" % (keys.prefix, suffix), count=_KEYS_A_STEP)
                for key in some:
                    entity = key.partition(b"}:")[2].removesuffix(suffix)
                    found.append(values_of(view.entity.keys, entity))
                if cursor == 0 or len(found) >= _MOST:
                    return found[:_MOST]
    except (redis.RedisError, ValueError):
        return None  # who may not look is told nothing more
    return found or None
