"""Which push topics a deployment has."""

from stillwell.pushing.record import push_topic
from stillwell.spec import DefinitionsSpec, ViewSpec


def pushed_views(definitions: DefinitionsSpec) -> tuple[ViewSpec, ...]:
    """The views that can be pushed to: all."""
    return definitions.views


def push_topics(project: str, definitions: DefinitionsSpec) -> tuple[str, ...]:
    """Kafka's names of the topics on which they are pushed."""
    return tuple(push_topic(project, view.name) for view in pushed_views(definitions))
