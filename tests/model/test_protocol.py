"""The protocol holds in every state that it can reach, and every one of its rules is needed."""

import pytest

from tests.model.protocol import Flaw, Protocol, Wrong


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param(Protocol(log="r-x", ahead=True), id="a gap, spans prepared ahead"),
        pytest.param(Protocol(log="rxf", ahead=True), id="a filtered record, spans prepared ahead"),
        pytest.param(Protocol(log="rx", losses=2), id="two creates in flight"),
        pytest.param(Protocol(log="rx", writers=3, retention=0), id="three writers"),
    ],
)
def test_the_protocol_holds_in_every_state(protocol: Protocol) -> None:
    found = protocol.explore()
    assert found.wrong is None, "\n".join([str(found.wrong), *found.trace])
    assert found.states > 20_000


WITHOUT = {
    Flaw.NAMES_WITHOUT_NONCE: Wrong.FILE_GONE,
    Flaw.LOSER_DELETES_BY_NAME: Wrong.FILE_GONE,
    Flaw.NONCE_PER_PROCESS: Wrong.FILE_GONE,
    Flaw.LINK_BEFORE_REDIS: Wrong.SINK_LACKS,
    Flaw.NO_GENESIS: Wrong.VIEW_WENT_BACK,
    Flaw.START_AT_FIRST_RECORD: Wrong.FORK,
    Flaw.RESUME_FROM_GROUP: Wrong.STUCK,
    Flaw.LINK_AHEAD: Wrong.FORK,
    Flaw.DOUBT_IS_LOSS: Wrong.FILE_GONE,
    Flaw.REFUSAL_IS_LOSS: Wrong.FILE_GONE,
    Flaw.ABSENCE_IS_LOSS: Wrong.FILE_GONE,
    Flaw.REVOKED_DELETES: Wrong.FILE_GONE,
    Flaw.SWEEP_ANYTHING_UNLINKED: Wrong.FILE_GONE,
    Flaw.SWEEP_BY_TWO_WALKS: Wrong.FILE_GONE,
    Flaw.ONE_REFILL: Wrong.SINK_LACKS,
    Flaw.HOPE_REDIS_IS_NO_FURTHER: Wrong.REDIS_IS_FURTHER,
}


@pytest.mark.parametrize(("flaw", "wrong"), WITHOUT.items(), ids=[flaw.name.lower() for flaw in WITHOUT])
def test_without_a_rule_something_goes_wrong(flaw: Flaw, wrong: Wrong) -> None:
    """And it is that which the rule is there to prevent."""
    protocol = Protocol(ahead=flaw is Flaw.LINK_AHEAD, retention=flaw is not Flaw.RESUME_FROM_GROUP, flaw=flaw)
    found = protocol.explore()
    assert found.wrong is wrong, "\n".join([str(found.wrong), *found.trace])
    assert 1 < len(found.trace) < 25


def test_every_flaw_is_tried() -> None:
    assert set(WITHOUT) == set(Flaw) - {Flaw.NONE}
