"""What the pages name is there: links, commands, files, settings, metrics, log lines; and every page is on the map."""

import ast
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import pytest

from serving import metrics as serve_metrics
from stillwell.cli.main import stillwell
from stillwell.settings import NOT_SETTINGS, Settings, variable
from stillwell.testing import plugin
from streams import metrics as worker_metrics

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SOURCES = sorted(file for room in ("stillwell", "streams", "sinks", "serving") for file in (ROOT / room).rglob("*.py"))
SHELL = ("sh", "shell", "bash", "console")
each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@dataclasses.dataclass(frozen=True)
class Text:
    """A page, taken apart. blocks: the language and text of each block of code. spans: code within prose."""

    prose: str
    blocks: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, markdown: str) -> "Text":
        prose: list[str] = []
        block: list[str] = []
        blocks: list[tuple[str, str]] = []
        language: str | None = None
        for line in markdown.splitlines():
            fence = re.match(r"\s*```(\w*)", line)
            if fence and language is None:
                language, block = fence[1], []
            elif fence:
                blocks.append((str(language), "\n".join(block)))
                language = None
            else:
                (prose if language is None else block).append(line)
        return cls("\n".join(prose), tuple(blocks))

    @property
    def spans(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.prose)

    @property
    def shell(self) -> list[str]:
        """Everything that a reader could type."""
        return [*self.spans, *(text for language, text in self.blocks if language in SHELL)]

    @property
    def anchors(self) -> set[str]:
        """What a link may name behind a `#`: headings, as they are shown on the code host."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, markdown: str) -> list[str]:
    """Every link within the repository that leads nowhere."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", Text.of(markdown).prose):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        text = markdown if file == page else file.read_text() if file.is_file() else ""
        if not file.exists() or (anchor and anchor not in Text.of(text).anchors):
            found.append(target)
    return found


def unknown_commands(code: str) -> Iterator[str]:
    """Every `stillwell …` in a piece of code that the command line does not have."""
    for words in re.findall(r"(?<![\w./-])stillwell((?: (?:--)?[a-z][a-z-]*\b(?![=/.:\w]))+)", code):
        if (problem := _unknown_word(words.split())) is not None:
            yield f"stillwell{words}: there is no {problem}"


def _unknown_word(words: Sequence[str]) -> str | None:
    command: click.Command = stillwell
    for word in words:
        if word.startswith("--"):
            if word != "--help" and not any(word in parameter.opts for parameter in command.params):
                return word
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


@each_page
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    assert dead_links(page, page.read_text()) == []


@each_page
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    assert [problem for code in Text.of(page.read_text()).shell for problem in unknown_commands(code)] == []


def test_every_command_that_a_message_names_exists() -> None:
    """Advice that cannot be followed is worse than none."""
    advice = [(file, code) for file in SOURCES for code in re.findall(r"`([^`\n]+)`", file.read_text())]
    assert len(advice) > 100
    assert [f"{file}: {problem}" for file, code in advice for problem in unknown_commands(code)] == []


@each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = Text.of(page.read_text())
    rooms = "stillwell|streams|sinks|schemas|tests|scripts|docs|deploy"
    named = [path for code in text.shell for path in re.findall(rf"(?<![\w./~-])(?:{rooms})/[\w./*-]*", code)]
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/.") or path))] == []
    scripts = [path for path in named if re.fullmatch(r"scripts/[\w-]+", path) and (ROOT / path).is_file()]
    assert [path for path in scripts if not os.access(ROOT / path, os.X_OK)] == []


@each_page
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {*map(variable, Settings.model_fields), *NOT_SETTINGS}
    assert set(re.findall(r"\bSTILLWELL_[A-Z]+(?:_[A-Z]+)*\b", page.read_text())) - known == set()


FIXTURES = {name for name in vars(plugin) if name.startswith("stillwell_")} | {"stillwell_example"}
"""What is called like a metric, and is there for pytest."""


@each_page
def test_every_metric_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`(stillwell_\w+)`", page.read_text())) - FIXTURES
    assert named - {metric.name for metric in (*worker_metrics.METRICS, *serve_metrics.METRICS)} == set()


def test_everything_that_a_worker_warns_of_is_explained_to_operators() -> None:
    page = (ROOT / "docs/explanation/durability.md").read_text()
    _, _, table = page.partition("| log line |")
    explained = set(re.findall(r"^\| `([^`]+)` \|", table.partition("\n\n")[0], re.MULTILINE))
    logged = {line for file in (ROOT / "streams").glob("*.py") for line in _warnings(ast.parse(file.read_text()))}
    assert explained == logged


def _warnings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_log.warning", "_log.error"):
            assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
            yield str(node.args[0].value)


@pytest.mark.parametrize("name", ["ordering.md", "durability.md"])
def test_the_examples_of_the_explanations_hold(name: str) -> None:
    for language, text in Text.of((ROOT / "docs/explanation" / name).read_text()).blocks:
        if language == "python":
            exec(compile(text, name, "exec"), {})


def test_every_page_is_on_the_map(page: Callable[[str, str], None]) -> None:
    """docs/README.md links every page, and its list of decisions is made here."""
    begin, end = "<!-- decisions: made by tests/unit/test_docs.py -->\n", "<!-- end of decisions -->\n"
    file = ROOT / "docs/README.md"
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    decisions = [(each, each.read_text().partition("\n")[0]) for each in sorted(ROOT.glob("docs/decisions/*.md"))]
    rows = [f"- [{title.removeprefix('# ')}](decisions/{each.name})\n" for each, title in decisions]
    page("README.md", before + begin + "".join(rows) + end + after)
    linked = {(file.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", file.read_text())}
    assert [name for name, each in zip(NAMES, PAGES, strict=True) if each not in linked | {file}] == []


def test_decisions_are_numbered_without_gaps() -> None:
    found = sorted(each.name for each in ROOT.glob("docs/decisions/*.md"))
    assert [name[:5] for name in found] == [f"{number:04d}-" for number in range(1, len(found) + 1)]
    for name in found:
        title = (ROOT / "docs/decisions" / name).read_text().partition("\n")[0]
        assert title.startswith(f"# {name[:4]} "), name


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("stillwell verfy", "verfy"),
        ("stillwell local upp", "upp"),
        ("stillwell verify --jsn", "--jsn"),
        ('eval "$(stillwell locl up)"', "locl"),
        ("stillwell verify && stillwell nothing", "nothing"),
    ],
)
def test_a_command_that_does_not_exist_is_found(code: str, problem: str) -> None:
    assert [each.rpartition(" ")[2] for each in unknown_commands(code)] == [problem]


@pytest.mark.parametrize(
    "code",
    [
        "stillwell verify --json",
        'eval "$(stillwell local up)"',
        "stillwell worker 2> worker.log &",
        "stillwell --help",
        "pip install stillwell",
        "import stillwell.registry",
        "from stillwell.layout.stamp import judge",
        "~/.local/state/stillwell/local",
    ],
)
def test_what_is_no_command_or_a_right_one_is_left_alone(code: str) -> None:
    assert list(unknown_commands(code)) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One heading, `two` words\n")
    links: Mapping[str, bool] = {
        "other.md": True,
        "other.md#one-heading-two-words": True,
        "#here": True,
        "https://example.com/nowhere": True,
        "nowhere.md": False,
        "other.md#another": False,
    }
    markdown = "# Here\n" + "".join(f"[text]({target})\n" for target in links) + "```\n[code](is/no/link)\n```\n"
    (tmp_path / "page.md").write_text(markdown)
    assert dead_links(tmp_path / "page.md", markdown) == [target for target, alive in links.items() if not alive]
