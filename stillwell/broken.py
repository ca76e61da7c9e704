"""That records broke expectations, rule by rule: what a batch has to tell of it, however many records it has."""

import dataclasses
from typing import NamedTuple

from stillwell.metric import Metric
from stillwell.spec import Action, TopicSpec

EXPECTATIONS_BROKEN = Metric(
    "counter",
    "stillwell_expectations_broken_total",
    "Records that broke a rule on a column, by its action: `reject`, `warn` or `stop`. One that breaks several counts "
    "for each.",
    ("topic", "column", "rule", "action"),
)


class RuleId(NamedTuple):
    """A rule on a column, as metrics and messages call it."""

    column: str
    rule: str
    action: Action


def rules_of(topic: TopicSpec) -> tuple[RuleId, ...]:
    """The rules on a topic's columns, in their order."""
    return tuple(RuleId(each.name, rule.rule, rule.action) for each in topic.columns for rule in each.expectations)


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """A rule that records of a batch broke: how many did, whatever else they broke, and the first of them.

    partition, offset: of the first; value: what it has in the column, as a sentence shows it.
    """

    rule: RuleId
    count: int
    partition: int
    offset: int
    value: str
