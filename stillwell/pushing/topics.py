"""Which push topics a deployment has."""

from stillwell.errors import DefinitionError
from stillwell.predictions.log import log_view
from stillwell.pushing.record import push_topic
from stillwell.spec import DefinitionsSpec, ViewSpec


def pushed_views(definitions: DefinitionsSpec) -> tuple[ViewSpec, ...]:
    """The views that can be pushed to: all. They are registered, and read from files, like those that are computed.

    And those that models' predictions are logged as: of topics without columns, so that they take final rows alone,
    each of them finished by whoever pushes it.
    """
    return (*definitions.views, *map(log_view, definitions.models))


def push_topics(project: str, definitions: DefinitionsSpec) -> tuple[str, ...]:
    """Kafka's names of the topics on which they are pushed. Raises DefinitionError where one is defined as another."""
    names = tuple(push_topic(project, view.name) for view in pushed_views(definitions))
    for topic in definitions.topics:
        if topic.topic in names:
            raise DefinitionError(
                f"{topic.name} has name={topic.topic!r}, where rows of a view are pushed: such a topic is read "
                "without a class of its own; take the class away, or choose another topic"
            )
    return names
