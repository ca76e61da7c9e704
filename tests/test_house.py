"""The house stands as it is drawn: which room may import which, and where."""

import ast
import dataclasses
import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("stillwell", "streams", "sinks", "serving", "schemas")
FAUST_FILES = 2


@dataclasses.dataclass(frozen=True)
class Arrow:
    """One room may import another: from the files that begin so, at the top of a module or inside functions only."""

    importer: str
    imported: str
    files: str
    inside_functions_only: bool
    why: str

    @property
    def where(self) -> str:
        """In words, for the table."""
        return f"`{self.files}`" + (", inside functions" if self.inside_functions_only else "")


ARROWS = (
    Arrow("stillwell", "streams", "stillwell/cli/", True, "a command imports what it runs when it runs"),
    Arrow("stillwell", "sinks", "stillwell/cli/", True, "a command imports what it runs when it runs"),
    Arrow(
        "stillwell", "sinks", "stillwell/client/direct.py", True, "the client that reads the store builds its reader"
    ),
    Arrow("stillwell", "serving", "stillwell/cli/", True, "a command imports what it runs when it runs"),
    Arrow("streams", "stillwell", "streams/", False, "the words of the product"),
    Arrow("streams", "sinks", "streams/app.py", False, "the composition root builds the real sinks"),
    Arrow("sinks", "stillwell", "sinks/", False, "the words of the product"),
    Arrow("serving", "stillwell", "serving/", False, "the words of the product"),
    Arrow("serving", "sinks", "serving/app.py", False, "the composition root builds the real sinks"),
    Arrow("schemas", "stillwell", "schemas/", False, "what definitions are written with"),
)


@dataclasses.dataclass(frozen=True)
class Import:
    """One import of a module: the file and line, what is imported (dotted, down to the name), and where it stands."""

    file: str
    line: int
    target: str
    inside_function: bool

    @property
    def importer(self) -> str:
        """The room that imports."""
        return self.file.split("/")[0]

    @property
    def imported(self) -> str:
        """The room, or the library, that is imported."""
        return self.target.split(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def imports(file: str, source: str) -> Iterator[Import]:
    """Every import in a file, those by a name in quotes included."""
    package = file.removesuffix(".py").split("/")[:-1]

    def walk(node: ast.AST, inside_function: bool) -> Iterator[Import]:
        for target in _targets(node, package):
            yield Import(file, getattr(node, "lineno", 0), target, inside_function)
        inside = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(ast.parse(source), False)


def _targets(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [name.value for name in node.args[:1] if isinstance(name, ast.Constant) and isinstance(name.value, str)]
    return []


def wrong(files: Mapping[str, str]) -> list[str]:
    """Every import in the files (path to source) that the drawing does not have."""
    found = list(itertools.chain.from_iterable(imports(file, source) for file, source in files.items()))
    problems = [
        f"{each}: there is no such arrow in the house. Turn it round, or pass what is needed as a parameter"
        for each in found
        if each.imported in (*ROOMS, "tests") and each.imported != each.importer and not _drawn(each)
    ]
    problems += [
        f"{each}: only streams consumes from Kafka"
        for each in found
        if each.importer != "streams" and each.target.startswith(("aiokafka.AIOKafkaConsumer", "aiokafka.consumer"))
    ]
    faust = {each.file: each for each in found if each.imported in ("faust", "mode")}
    problems += [f"{each}: only streams knows Faust" for each in faust.values() if each.importer != "streams"]
    if len(faust) > FAUST_FILES:
        problems.append(f"Faust is imported in {', '.join(sorted(faust))}; it may be in {FAUST_FILES} files at most")
    return problems


def _drawn(each: Import) -> bool:
    return any(
        (each.importer, each.imported) == (arrow.importer, arrow.imported)
        and each.file.startswith(arrow.files)
        and (each.inside_function or not arrow.inside_functions_only)
        for arrow in ARROWS
    )


def test_every_import_follows_an_arrow() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert {"stillwell/cli/main.py", "streams/__init__.py", "sinks/__init__.py"} <= files.keys()
    assert wrong(files) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stillwell/pipeline.py", "import sinks"),
        ("stillwell/pipeline.py", "def f():\n    from streams.worker import run"),
        ("stillwell/cli/worker.py", "from streams import app"),
        ("stillwell/cli/worker.py", "def f():\n    import schemas"),
        ("stillwell/client/direct.py", "from sinks.redis_reader import RedisReader"),
        ("stillwell/client/client.py", "def f():\n    from sinks.redis_reader import RedisReader"),
        ("stillwell/registry.py", "import importlib\nimportlib.import_module('sinks.redis')"),
        ("streams/flow.py", "from sinks.archive import Archive"),
        ("streams/flow.py", "import schemas.departures"),
        ("streams/flow.py", "async def f():\n    from serving import app"),
        ("sinks/archive.py", "from streams.ports import Pause"),
        ("serving/query.py", "from sinks import online"),
        ("schemas/views.py", "import streams"),
        ("sinks/archive.py", "from tests.services import FakeGcs"),
        ("sinks/archive.py", "import faust"),
        ("stillwell/cli/dlq.py", "def f():\n    from aiokafka import AIOKafkaConsumer"),
    ],
)
def test_a_new_arrow_is_found(file: str, source: str) -> None:
    assert len(wrong({file: source})) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stillwell/cli/worker.py", "def f():\n    from streams.app import run"),
        ("stillwell/client/direct.py", "def f():\n    from sinks.redis_reader import RedisReader"),
        ("streams/app.py", "from sinks.archive import Archive"),
        ("streams/app.py", "import faust"),
        ("streams/consumer.py", "from aiokafka import AIOKafkaConsumer"),
        ("sinks/archive.py", "from . import chain\nfrom .chain import append\nimport sinks.chain"),
        ("schemas/views.py", "from stillwell import View"),
        ("stillwell/cli/doctor.py", "def f():\n    from aiokafka import TopicPartition"),
    ],
)
def test_a_drawn_arrow_is_allowed(file: str, source: str) -> None:
    assert wrong({file: source}) == []


def test_faust_in_a_third_file_is_found() -> None:
    (problem,) = wrong({f"streams/{name}.py": "import faust" for name in "abc"})
    assert "2 files at most" in problem


def test_the_types_and_imports_of_every_file_are_read() -> None:
    """A folder that the linters' settings leave out would drift unseen."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    homes = (*ROOMS, "tests", "scripts")
    assert set(tools["ruff"]["lint"]["isort"]["known-first-party"]) == set(homes)
    files = [path.relative_to(ROOT) for home in homes for path in (ROOT / home).rglob("*.py")]
    assert [str(file) for file in files if not any(file.is_relative_to(read) for read in tools["mypy"]["files"])] == []


def _struct_read_late(source: str) -> list[int]:
    """The lines that hand msgspec a type when they decode."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if ast.unparse(call.func) in ("msgspec.json.decode", "json.decode", "msgspec.msgpack.decode")
        and any(keyword.arg == "type" for keyword in call.keywords)
    ]


def test_msgspec_reads_the_types_of_a_module_when_it_is_imported() -> None:
    """Where two threads are the first to decode a struct, msgspec 0.22 crashes the process. A decoder that a module
    makes has read its struct before anybody can use it."""
    assert _struct_read_late("import msgspec\nmsgspec.json.decode(b'{}', type=Link)") == [2]
    late = {
        path.relative_to(ROOT).as_posix(): lines
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if (lines := _struct_read_late(path.read_text()))
    }
    assert late == {}


def test_the_page_shows_the_arrows(page: Callable[[str, str], None]) -> None:
    begin, end = "<!-- arrows: made by tests/test_house.py -->\n", "<!-- end of arrows -->\n"
    before, _, rest = (ROOT / "docs/explanation/house.md").read_text().partition(begin)
    _, _, after = rest.partition(end)
    rows = ["| room | imports | where | why |", "|---|---|---|---|"]
    rows += [f"| `{arrow.importer}` | `{arrow.imported}` | {arrow.where} | {arrow.why} |" for arrow in ARROWS]
    page("explanation/house.md", before + begin + "\n".join(rows) + "\n" + end + after)
