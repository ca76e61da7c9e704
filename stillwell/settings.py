"""The settings of a deployment: one typed, frozen object, from the environment or a TOML file.

`STILLWELL_KAFKA_BOOTSTRAP` in the environment and `kafka_bootstrap` in `stillwell.toml` are the same setting; the
environment wins. An unknown name is refused in both: a misspelt limit that quietly keeps its default is found out in
production. Durations are numbers with a unit ("250ms", "30s", "5m", "6h", "7d"), and so may sizes be ("32MiB").

    settings = Settings.load()          everything, for commands that touch the stores
    settings = KafkaSettings.load()     what the project is and where Kafka is, for commands that need no store
    settings = ProjectSettings.load()   what the project is, for commands that need no service
"""

import datetime
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    Secret,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from stillwell.errors import SettingsError, SettingsMissing
from stillwell.redaction import hide_password

PREFIX = "STILLWELL_"
FILE_VARIABLE = "STILLWELL_CONFIG"
DEFAULT_FILE = "stillwell.toml"

NOT_SETTINGS: Mapping[str, str] = {
    FILE_VARIABLE: f"the TOML file to read in place of `{DEFAULT_FILE}` in the working directory",
    "STILLWELL_URL": "the root of the query service that commands ask, as `--url` names it",
    "STILLWELL_CACHE": "where the embedded stack keeps what it downloaded; by default `~/.cache/stillwell`",
    "STILLWELL_LOCAL": "where `stillwell local` keeps its data; by default `~/.local/state/stillwell/local`",
    "STILLWELL_MAVEN_URL": "a mirror to download Kafka from, in Maven Central's place",
    "STILLWELL_VENV": "the environment that `scripts/test` makes and uses; by default `.venv`",
    "STILLWELL_TOOLS": "where `scripts/test` builds the tools that are written in Go, and `scripts/apart` makes "
    "environments; by default `.tools`",
}
"""Variables with our prefix that are read elsewhere."""

_SECRETS = ("kafka_sasl_password", "redis_url")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {
    "ms": datetime.timedelta(milliseconds=1),
    "s": datetime.timedelta(seconds=1),
    "m": datetime.timedelta(minutes=1),
    "h": datetime.timedelta(hours=1),
    "d": datetime.timedelta(days=1),
}
# Kubernetes gives every pod variables of each service beside it: a service called `stillwell-worker` would be refused
# as a misspelt setting, and the pods of a whole namespace with it.
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")


class SecretUrl(Secret[str]):
    """A URL that may carry a password: shown with `***` in its place."""

    def _display(self) -> str:
        return hide_password(self.get_secret_value())


def _duration(value: object) -> object:
    if isinstance(value, datetime.timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number and its unit: ms, s, m, h or d, as in '30s'")
    return float(match[1]) * _UNITS[match[2]]


def _longer_than_nothing(value: datetime.timedelta) -> datetime.timedelta:
    if value <= datetime.timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


def _a_wait_of_kafkas(value: datetime.timedelta) -> datetime.timedelta:
    if not datetime.timedelta(milliseconds=1) <= value <= datetime.timedelta(seconds=2):
        raise ValueError(
            "must be from 1ms to 2s: Kafka counts in milliseconds, and while a fetch waits at a broker, other "
            "questions to that broker wait behind it"
        )
    return value


def _redis_address(value: SecretUrl) -> SecretUrl:
    """Refuse what redis-py would take for something else, or raise over later.

    Nothing that came is quoted: of a password that was not escaped any part of the URL may be a piece.
    """
    text = value.get_secret_value()
    _require(not re.search(r"[\s#]", text), "must hold neither spaces nor #: write those of a password as %20 and %23")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        port = 0
    _require(
        port != 0,
        "must have a port from 1 to 65535 behind its host, or none, for 6379; write / ? @ : of a password as "
        "%2F %3F %40 %3A",
    )
    if url.scheme == "unix":
        _require(not url.hostname and url.path.strip("/") != "", "must be unix:///path, the path of a socket")
        _require(re.fullmatch(r"(db=[0-9]+)?", url.query) is not None, f"must have nothing but db=N {_NO_OPTIONS}")
        return value
    _require(
        url.scheme in ("redis", "rediss") and bool(url.hostname),
        "must be redis://host:port/db, rediss://… for TLS, or unix:///path",
    )
    _require(not url.query, f"must have nothing {_NO_OPTIONS}")
    _require(
        re.fullmatch(r"(/[0-9]*)?", url.path) is not None,
        "must end in the number of a database, as /0; write a / of a password as %2F",
    )
    return value


_NO_OPTIONS = (
    "behind a ?, for options there would override those that Stillwell relies on: write user and password as in "
    "redis://user:password@host:port/db (a ? in them as %3F), and name the certificates to trust in SSL_CERT_FILE"
)


def _folder_or_bucket(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        return str(Path(value).expanduser().absolute())
    if scheme != "gs" or not urlsplit(value).netloc:
        raise ValueError("must be gs://bucket, gs://bucket/path or a folder")
    return f"gs://{rest.rstrip('/')}"


Duration = Annotated[datetime.timedelta, BeforeValidator(_duration), AfterValidator(_longer_than_nothing)]
Size = Annotated[ByteSize, Field(gt=0)]
_NAME = r"^[a-z0-9][a-z0-9_-]*$"
_KAFKA_NAME = r"^[a-zA-Z0-9._{}-]+$"
_MODULE_NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_BOOTSTRAP = r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$"
_IN_WORDS: Mapping[str, str] = {
    _NAME: "must be of small letters of ASCII, digits, _ and -, and begin with a letter or a digit, as in 'flights'",
    _KAFKA_NAME: "must be of letters of ASCII, digits, '.', '_' and '-', as Kafka has names",
    _MODULE_NAME: "must be the name of a Python package or module, as import has it: 'schemas', or 'team.features'",
    _BOOTSTRAP: "must be host:port, or several with commas and no spaces between, as in 'kafka-1:9092,kafka-2:9092'",
}
"""What each pattern asks for."""

Name = Annotated[str, StringConstraints(pattern=_NAME, max_length=64)]
KafkaName = Annotated[str, StringConstraints(pattern=_KAFKA_NAME, max_length=200)]
ModuleName = Annotated[str, StringConstraints(pattern=_MODULE_NAME)]
Bootstrap = Annotated[str, StringConstraints(pattern=_BOOTSTRAP)]
Port = Annotated[int, Field(ge=1, le=65535)]


class ProjectSettings(BaseSettings):
    """What the project is and how it talks: enough for a command that needs no service."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    project: Name
    """Names the project: a part of every Redis key, and of the names of the topics that Stillwell makes. Another name
    is another project, which finds nothing of what this one has stored."""

    namespace: Name = "prod"
    """Keeps apart what shares a project's topics and stores. A change that changes rows, keys, `where` or event times
    needs a new one, filled from the topics' start beside the old; two deployments that share one without meaning to
    overwrite each other's rows."""

    definitions: ModuleName
    """The package that holds the topics, entities and views, by its import name."""

    log_format: Literal["json", "console"] = "json"
    """`json` for machines that collect logs, one object a line; `console` for people."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written. `debug` adds one for each link, more from the libraries, and
    tracebacks to the errors of commands; at `error`, warnings such as that of a sink which does not answer are lost."""

    max_future: Duration = datetime.timedelta(hours=1)
    """An event whose time is further than this past its record's timestamp is rejected: it would be the newest for as
    long. Too small refuses honest producers whose clocks run ahead; too large lets one bad clock win."""

    @classmethod
    def load(cls) -> Self:
        """The settings as the environment and the file say.

        Raises SettingsError, naming every setting that is unknown or wrong, and those that are missing here. What is
        wrong is told whether it is used here or not: `stillwell check` is what runs before a deployment.
        """
        _refuse_unknown()
        # pydantic-settings fills what is not given; a type checker sees the fields as arguments that are missing.
        try:
            Settings()  # type: ignore[call-arg,unused-ignore]
        except ValidationError as error:
            problems = [
                problem
                for problem in error.errors()
                if problem["type"] != "missing" or problem["loc"][0] in cls.model_fields
            ]
            if problems:
                kind = SettingsMissing if all(each["type"] == "missing" for each in problems) else SettingsError
                # Without the chain: pydantic's own words would only repeat ours, with less.
                raise kind("\n".join(map(_sentence, problems))) from None
        return cls()  # type: ignore[call-arg,unused-ignore]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was passed, then the environment, then the file; no `.env`, whose place and order nobody remembers."""
        known = {name: value for name, value in _file_values().items() if name in settings_cls.model_fields}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=known)

    def shown(self) -> dict[str, str]:
        """Every setting as text for people, secrets hidden."""
        return {name: spelled(value) for name, value in self}


class KafkaSettings(ProjectSettings):
    """And where Kafka is: enough for a command that only looks at topics, or writes to one."""

    kafka_bootstrap: Bootstrap
    """Kafka brokers to ask first, as `host:port,host:port`. Name several: with one, a start fails while it is down."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to Kafka. PLAINTEXT and SASL_PLAINTEXT send events, and the latter passwords, readable by the
    network."""

    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How to prove who we are, where the protocol is one of SASL."""

    kafka_sasl_user: str | None = None
    """The user name for SASL."""

    kafka_sasl_password: SecretStr | None = None
    """The password for SASL."""

    kafka_ssl_ca: Path | None = None
    """A file of certificates (PEM) to trust in the system's place, where the protocol is one of SSL."""

    @model_validator(mode="after")
    def _credentials_agree(self) -> Self:
        """Refuse words of how to reach Kafka that are right one by one and wrong together."""
        sasl = self.kafka_security_protocol.startswith("SASL_")
        credentials = (self.kafka_sasl_user, self.kafka_sasl_password)
        _require(
            not sasl or None not in credentials,
            f"kafka_security_protocol is {self.kafka_security_protocol}, which needs kafka_sasl_user and "
            "kafka_sasl_password, but not both are set",
        )
        _require(
            sasl or credentials == (None, None),
            f"kafka_sasl_user or kafka_sasl_password is set, but kafka_security_protocol is "
            f"{self.kafka_security_protocol}, which does not use them: set it to SASL_SSL",
        )
        _require(
            self.kafka_ssl_ca is None or self.kafka_security_protocol.endswith("SSL"),
            f"kafka_ssl_ca is set, but kafka_security_protocol is {self.kafka_security_protocol}, which does not use "
            "it: set it to SSL or SASL_SSL",
        )
        return self


class Settings(KafkaSettings):
    """Everything that a worker, and every command that touches the stores, needs to know."""

    kafka_group: KafkaName = "{project}.{namespace}"
    """The consumer group. All workers of a namespace share one; a second group over the same namespace does all the
    work twice and finds every link taken. `{project}` and `{namespace}` stand for those settings."""

    redis_url: Annotated[SecretUrl, AfterValidator(_redis_address)]
    """The online store: `redis://[user:password@]host:port/db`, `rediss://…` for TLS, `unix:///path?db=0` for a socket.
    Other options are refused. TLS trusts the certificates of the system, or of the file that `SSL_CERT_FILE` names.
    What is ours there begins with `<project>:<namespace>:`, so that several may share it."""

    offline_url: Annotated[str, AfterValidator(_folder_or_bucket)]
    """The offline store: `gs://bucket/path`, or a folder. What is ours there lies below `<project>/<namespace>/`, so
    that several may share it. A folder must be on storage that all workers share, and that outlives them."""

    dead_letter_topic: KafkaName = "{project}.{namespace}.dead-letters"
    """Where records go that cannot be used. Each namespace needs its own: letters do not say which one has refused a
    record. `{project}` and `{namespace}` stand for those settings."""

    push: bool = True
    """Whether workers take in what is pushed, and the query service takes pushes: one topic more for each view,
    `<project>.push.<view>`, which must be there. Without, nothing reads what producers write to those topics."""

    push_timeout: Duration = datetime.timedelta(seconds=5)
    """How long Kafka has to acknowledge what is pushed before the query service answers 503, and before a worker pushes
    anew what it has predicted. Shorter than a change of leaders (seconds) fails pushes for nothing; longer lets clients
    wait for a Kafka that is away."""

    push_bytes: Size = ByteSize(64 * 1024 * 1024)
    """What may wait for Kafka, of each process that pushes: beyond, the query service refuses pushes, and a worker
    holds its predictions back. More is memory that an outage of Kafka fills."""

    window_rows: Annotated[int, Field(gt=0)] = 250_000
    """A window is written when a partition has this many records. Fewer make many small files, slow to read; more
    are lost work, done again, when a worker dies."""

    window_bytes: Size = ByteSize(32 * 1024 * 1024)
    """… or when its files, those of the raw archive and of all views together, hold this much memory: full row groups
    compressed, the rows behind them not yet. Small windows make small files; each partition may hold one, so that large
    ones spend `buffer_bytes` before their age is reached."""

    window_age: Duration = datetime.timedelta(seconds=30)
    """… or when its first record has waited this long. It bounds how far the offline store and the group's offset lag
    behind; a tenth of it makes ten times as many objects, each with its price."""

    buffer_bytes: Size = ByteSize(128 * 1024 * 1024)
    """What a topic may hold in memory between Kafka and the sinks, over all partitions; a topic that has spent it
    stops fetching. Less stops a fast topic at every upload; more is memory that an outage of a store fills."""

    redis_grace: Duration = datetime.timedelta(hours=1)
    """How long a key outlives the TTL of its row, fixed for a namespace. It must exceed the differences between
    clocks and the worker's worst lag, or a late older event may bring an expired row back; more costs memory."""

    fetch_wait: Annotated[Duration, AfterValidator(_a_wait_of_kafkas)] = datetime.timedelta(milliseconds=30)
    """How long Kafka may let a fetch wait until a megabyte has come together. Shorter makes a lone event's row fresher;
    but batches become smaller and cost more, which under load makes all rows late. Longer saves processor time."""

    partition_fetch_bytes: Size = ByteSize(4 * 1024 * 1024)
    """The most that one fetch takes from one partition. Below 1 MiB throughput falls; times the number of partitions
    it is memory that no buffer counts. A larger single record still comes."""

    session_timeout: Duration = datetime.timedelta(seconds=30)
    """After this silence Kafka gives a worker's partitions to the others. Shorter than a pause of the machine causes
    rebalances for nothing; longer leaves a dead worker's partitions standing still."""

    rebalance_timeout: Duration = datetime.timedelta(seconds=60)
    """How long Kafka waits for every worker to hand over. Half of it is what an upload in flight has to finish; a
    worker that is late loses its partitions, and its work in hand is done again."""

    drain_timeout: Duration = datetime.timedelta(seconds=25)
    """What a worker that is told to end (SIGTERM) may take to write what it holds. Keep it below the platform's own
    patience (30 s in Kubernetes), or it is killed first: nothing is lost then, but work is done again."""

    watchdog_timeout: Duration = datetime.timedelta(minutes=2)
    """A partition that has records waiting but has stood still this long, though its sinks are healthy, ends the
    process, to be started anew. Shorter than the slowest healthy window ends workers for nothing."""

    reject_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The worker stops when more than this part of a topic's latest records would be rejected, be it by one view on
    whose expression they raise: more likely a wrong schema or definition than bad data. 1 never stops, and sends all of
    a topic to the dead letters when its schema changes."""

    reject_min_count: Annotated[int, Field(gt=0)] = 1000
    """… but not before this many records have been judged, so that a quiet topic's one bad record stops nobody."""

    web_host: str = "127.0.0.1"
    """Where metrics and health are served. In a container say 0.0.0.0, or no probe gets through; anywhere else that
    shows them to the network."""

    web_port: Port = 6066
    """The port of metrics and health."""

    serve_host: str = "127.0.0.1"
    """Where the query service listens. In a container say 0.0.0.0; it asks nobody who they are."""

    serve_port: Port = 6566
    """The port of the query service: the one at which Feast's clients look for its feature server."""

    serve_timeout: Duration = datetime.timedelta(seconds=1)
    """How long the query service waits for Redis before it answers 503. Longer than a caller waits helps nobody."""

    serve_body_bytes: Size = ByteSize(1024 * 1024)
    """The most that the body of a request may have."""

    serve_rows: Annotated[int, Field(gt=0)] = 1_000
    """The most entities in one request. A large request holds up those behind it for as long as it takes."""

    serve_features: Annotated[int, Field(gt=0)] = 500
    """The most features in one request."""

    serve_values: Annotated[int, Field(gt=0)] = 100_000
    """The most values, entities times features, in one request: some 50 ms in which nobody else is answered."""

    serve_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes of the query service on its port: one for each core that it may use. `stillwell serve --workers` wins
    over it. In Kubernetes rather run more pods."""

    serve_in_flight: Annotated[int, Field(gt=0)] = 1_000
    """The most requests that one process of the query service answers at once; further ones get a 503 at once. More
    would only wait longer: a thousand requests for ten features of one entity are a tenth of a second's work."""

    serve_connections: Annotated[int, Field(gt=0)] = 4_000
    """The most connections of clients to one process of the query service; each takes some 9 kB. The process's limit
    of open files must be above it."""

    serve_client_timeout: Duration = datetime.timedelta(seconds=10)
    """How long a client may take to send a request that it has begun, or to take its answer, before the connection is
    ended. Shorter cuts off clients on slow networks; longer lets those who never finish hold connections."""

    serve_idle_timeout: Duration = datetime.timedelta(seconds=75)
    """How long a connection stays open on which nothing is asked. It must be longer than what a load balancer before
    the service waits (60 s with many), or that one now and then sends a request into a connection that ends."""

    serve_busy_poll_us: Annotated[int, Field(ge=0, le=10_000)] = 0
    """For how many microseconds after a request a process of the query service looks for the next one instead of
    sleeping. 200 took a fifth off p99 on a virtual machine, whose cores are slow to wake, and keep the process's core
    busy as long as requests come: no good where processor time is rationed, or where pods are scaled by its use."""

    serve_push_rows: Annotated[int, Field(gt=0)] = 1_000
    """The most rows in one push. A large one holds up the smaller ones of its view."""

    @property
    def offline_root(self) -> str:
        """What a store is opened with: where everything of this namespace lies. Another one finds nothing of it."""
        return f"{self.offline_url.rstrip('/')}/{self.project}/{self.namespace}"

    @field_validator("kafka_group", "dead_letter_topic", mode="after")
    @classmethod
    def _fill_in(cls, value: str, info: ValidationInfo) -> str:
        names = {name: info.data[name] for name in ("project", "namespace") if name in info.data}
        try:
            return value.format(**names)
        except (KeyError, ValueError, IndexError):
            if len(names) == 2:
                raise ValueError("may hold {project} and {namespace}, and no other braces") from None
            return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse values that are right one by one and wrong together."""
        for name in ("window_bytes", "partition_fetch_bytes"):
            _require(
                getattr(self, name) <= self.buffer_bytes,
                f"{name} is {spelled(getattr(self, name))}, more than buffer_bytes allows a whole topic "
                f"({spelled(self.buffer_bytes)}), so that it could never be reached: make one of them fit",
            )
        _require(
            self.session_timeout <= self.rebalance_timeout,
            f"session_timeout is {spelled(self.session_timeout)}, longer than rebalance_timeout "
            f"({spelled(self.rebalance_timeout)}): a rebalance would end before a dead worker is "
            "noticed; shorten it, or lengthen rebalance_timeout",
        )
        _require(
            self.watchdog_timeout > self.window_age,
            f"watchdog_timeout is {spelled(self.watchdog_timeout)}, not longer than window_age "
            f"({spelled(self.window_age)}): it would end a worker that fills a window in peace; lengthen "
            "it, or shorten window_age",
        )
        return self


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def is_given(name: str) -> bool:
    """Whether the environment or the file says anything of a setting. Raises SettingsError for a file that is none."""
    return bool(os.environ.get(variable(name))) or name in _file_values()


def spelled(value: object) -> str:
    """A setting's value as one would write it; secrets hidden."""
    if isinstance(value, datetime.timedelta):
        for unit, length in reversed(_UNITS.items()):
            if value >= length and value % length == datetime.timedelta(0):
                return f"{value // length}{unit}"
        return f"{value / _UNITS['ms']:g}ms"
    if isinstance(value, ByteSize):
        return value.human_readable(separator="").replace(".0", "")
    return "" if value is None else str(value)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _file() -> Path | None:
    """The settings file, if there is one. Raises SettingsError when one is named that is not there."""
    named = os.environ.get(FILE_VARIABLE)
    file = Path(named or DEFAULT_FILE)
    if file.is_file():
        return file
    if named:
        raise SettingsError(f"{FILE_VARIABLE} names the settings file {named}, but there is no such file.")
    return None


def _file_values() -> dict[str, object]:
    file = _file()
    if file is None:
        return {}
    try:
        # Some editors write a mark of the encoding in front, which nobody sees and TOML does not have.
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f'{file} must be TOML, as in `kafka_bootstrap = "host:9092"`: {error}.') from None


def _refuse_unknown() -> None:
    """Raise SettingsError for each name, in the environment or the file, that is no setting."""
    names = Settings.model_fields.keys()
    variables = [variable(name) for name in names]
    problems = [
        f"{name}, set in the environment, is no setting.{_nearest(name, [*variables, *NOT_SETTINGS], PREFIX)}"
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIX)
        and name not in variables
        and name not in NOT_SETTINGS
        and not _from_kubernetes(name, value)
    ]
    problems += [
        f"[{name}], a heading in {_file()}, is no setting. All settings stand above the first heading; leave it out."
        if isinstance(value, dict)
        else f"{name}, set in {_file()}, is no setting.{_nearest(name.lower().removeprefix(PREFIX.lower()), names)}"
        for name, value in sorted(_file_values().items())
        if name not in names
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def _from_kubernetes(name: str, value: str) -> bool:
    return bool(_KUBERNETES.search(name) or (name.endswith("_PORT") and _KUBERNETES_PORT.match(value)))


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """The name that was meant, by what differs: a long prefix that all share makes any two look alike."""
    near = difflib.get_close_matches(name.removeprefix(prefix), [known.removeprefix(prefix) for known in names], n=1)
    return (
        f" Did you mean {prefix}{near[0]}?" if near else " Remove it, or look its name up in the reference of settings."
    )


def _sentence(problem: ErrorDetails) -> str:
    """Subject, rule, what came, what to do."""
    rule = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if not problem["loc"]:
        return f"Settings disagree: {rule}."
    name = str(problem["loc"][0])
    if problem["type"] == "missing":
        meaning = (Settings.model_fields[name].description or "").split(".")[0].replace("\n", " ")
        file = _file() or f"{DEFAULT_FILE}, which is not in {Path.cwd()}"
        return f"{variable(name)} is missing. {meaning}. Set it in the environment, or `{name}` in {file}."
    if problem["type"] == "string_pattern_mismatch":
        rule = _IN_WORDS[problem["ctx"]["pattern"]]
    if problem["type"] in ("bool_parsing", "bool_type"):
        rule = "must be true or false"
    came = "not shown, as it may hold a secret" if name in _SECRETS else repr(problem["input"])
    where = "the environment" if variable(name) in os.environ else f"{_file()}"
    return f"{variable(name)}: {rule}; what came is {came}. Correct it in {where}."
