"""Every error that Stillwell raises on purpose. The tree:

StillwellError
├── DefinitionError        a definition is wrong: names file, class, field and the fix
├── SettingsError          a setting is unknown, missing or wrong
│   └── SettingsMissing    nothing is wrong but that what is needed is not given
├── RequestError           a request for features, or with rows, is wrong: names the field and the fix
│   └── NotDefined         it names what the definitions do not have
├── StoreError             Redis, Kafka or the object store
│   ├── StoreUnavailable   did not answer, or answered that it cannot now: nothing was done; try again
│   ├── OutcomeUnknown     the call may have been carried out, or may still be: read back before going on
│   ├── AlreadyExists      a create-only write found an object in its place
│   ├── NotFound           there is no such object
│   ├── NotWritten         Kafka holds what was pushed, the online store does not yet: names the token to wait for
│   ├── Behind             what a read waits for is not in the online store yet: says how far it is behind
│   └── StoreNotReady      the store answers, but may have lost data: refuse to read or write until `stillwell rebuild`
├── ModelError             a model, or the server that has it, gave no answer of use: says why
│   └── ModelUnavailable   the server is not reached, or cannot answer now: try again
│       ├── ModelFailed    it answered that it has failed
│       └── ModelLeftAlone it has failed again and again, and was not asked
├── ChainError             the commit chain cannot be read as it should be: names the object and what is wrong with it
├── LocalStackError        a part of the embedded stack could not be fetched, started or reached: says what to do
├── ClientError            the client has no answer that it could use: stillwell/client/errors.py draws its branches
├── FormatError            stored bytes are of a format or layout that this version cannot read
└── PartitionStopped       a partition must not go on until a person has decided: says what to run
"""

from collections.abc import Mapping


class StillwellError(Exception):
    """The root of the tree above."""


class DefinitionError(StillwellError):
    """Definitions are wrong. Each argument is one mistake, whose message names file, class, field and the fix."""

    def __str__(self) -> str:
        return "\n".join(self.args)


class SettingsError(StillwellError):
    """A setting is unknown, missing or has a wrong value. The message names it and what is allowed."""


class SettingsMissing(SettingsError):
    """Settings are needed that nothing gives, and none of those that are given is wrong."""


class RequestError(StillwellError):
    """A request cannot be answered as it is. field: the part of it that is wrong; the message says what to do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class NotDefined(RequestError):
    """A request names a view, feature or service that the definitions do not have."""


class StoreError(StillwellError):
    """A store (Redis, Kafka, object store) failed or refused."""


class StoreUnavailable(StoreError):
    """The store did not do what was asked, for certain; asking again later may work."""


class OutcomeUnknown(StoreError):
    """No answer came: the call may have been carried out, may be later, or never. Read back before going on."""


class AlreadyExists(StoreError):
    """A create-only write found an object in its place; nothing was written."""


class NotFound(StoreError):
    """There is no object at this path."""


class StoreNotReady(StoreError):
    """The online store answers but may have lost data; nothing may be read or written until `stillwell rebuild`."""


class ModelError(StillwellError):
    """A model, or the server that has it, gave no answer that can be used. The message says why."""


class ModelUnavailable(ModelError):
    """The model's server is not reached, or cannot answer now; asking again later may work."""


class NotWritten(StoreError):
    """Kafka holds rows that were pushed, so that the worker will write them; the online store did not take them now.

    token: the push's, by which a reader can wait for them.
    """

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


class Behind(StoreError):
    """What a read was to wait for is not in the online store yet.

    lag: how many records are still to be taken in; offsets: the same for each view and partition.
    """

    def __init__(self, message: str, lag: int, offsets: Mapping[str, Mapping[int, int]]) -> None:
        super().__init__(message)
        self.lag = lag
        self.offsets = offsets


class ModelFailed(ModelUnavailable):
    """The model's server answered that it has failed: it is broken, or breaks over something in what it was asked."""


class ModelLeftAlone(ModelUnavailable):
    """The model's server has failed again and again, or its function hangs, and was not asked: it is given time."""


class ChainError(StillwellError):
    """The commit chain cannot be read as it should be. The message names the object and what is wrong with it."""


class LocalStackError(StillwellError):
    """A part of the embedded stack could not be fetched, started or reached. The message says what to do."""


class FormatError(StillwellError):
    """Stored bytes have a format or layout that this version of Stillwell cannot read."""


class PartitionStopped(StillwellError):
    """A partition must not go on until a person has decided. The message says why and which command to run."""
