"""Why a flow ends before its partition is given away: what is in hand is dropped, and the partition opened anew."""

from stillwell.errors import StillwellError


class FlowEnded(StillwellError):
    """What is in hand is dropped; the partition is to be opened anew at the chain's end."""


class Overtaken(FlowEnded):
    """Another writer's link stands where ours should."""


class OutOfRange(FlowEnded):
    """Kafka no longer has the offset that is to be read next; what is in hand can still be linked."""


class TopicReplaced(FlowEnded):
    """The topic was made anew: what is in hand may be of the new one, whose records do not belong to this chain."""


class Adopted(FlowEnded):
    """A person has opened the topic's next incarnation: it is read under that one, from its beginning."""


class OnlineFellBehind(FlowEnded):
    """Redis has lost writes that it had acknowledged."""
