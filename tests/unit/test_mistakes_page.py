"""The page of mistakes is true: each is made, and its message is what the page says, to the letter."""

import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillwell.cli.main import run
from stillwell.definitions.loading import load_definitions
from stillwell.pipeline import compile_pipeline
from tests.batches import records

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "mistakes.md"
MADE = re.compile(r"^<!-- mistake: (\w+) -->\n```\w*\n(.*?)^```\n\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
(BASE,) = re.findall(r"^<!-- shop -->\n```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
KINDS = ("definition", "environment", "file", "command", "record")
LEAST = 30

Say = Callable[[str, str], str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """say(kind, written): what is said of it, in a folder with the page's definitions, where no service is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    settings = {
        "PROJECT": "shop",
        "DEFINITIONS": "shop",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1",
        "OFFLINE_URL": "offline",
    }

    def call(*words: str) -> str:
        assert run(words) in (1, 2)
        said = capsys.readouterr().err
        said = said[max(0, said.find("\nError: ") + 1) :]  # behind how the command is used
        return said.replace(str(tmp_path), "/srv/shop")

    def told(kind: str, written: str) -> str:
        sys.modules.pop("shop", None)
        file = tmp_path / "stillwell.toml"
        file.unlink(missing_ok=True)
        extra = f"\n\n{written}" if kind == "definition" else ""
        (tmp_path / "shop.py").write_text(f"{BASE}{extra}")
        with monkeypatch.context() as inner:
            for name, value in settings.items():
                inner.setenv(f"STILLWELL_{name}", value)
            match kind:
                case "definition":
                    return call("check")
                case "environment":
                    for line in written.splitlines():
                        name, _, value = line.partition("=")
                        inner.setenv(name, value)
                    return call("verify")
                case "file":
                    file.write_text(written)
                    return call("verify")
                case "command":
                    return call(*shlex.split(written)[1:])
            return _of_record(tmp_path, written)

    yield told
    sys.modules.pop("shop", None)


def _of_record(folder: Path, written: str) -> str:
    """Why a record of the topic cannot be used, as its dead letter says."""
    definitions = load_definitions("shop", folder)
    (topic,) = definitions.topics
    outcome = compile_pipeline(topic, definitions.views_of(topic)).run(records([written.strip().encode()]))
    assert outcome.rejects
    return "\n".join(reject.error for reject in outcome.rejects)


def wrapped(said: str) -> str:
    """Lines that fit a page."""
    lines = (textwrap.wrap(line, 120, break_long_words=False, break_on_hyphens=False) for line in said.splitlines())
    return "".join(f"{line}\n" for each in lines for line in each)


def test_every_message_is_what_is_said(say: Say, page: Callable[[str, str], None]) -> None:
    def made(found: re.Match[str]) -> str:
        kind, written, message = found.groups()
        said = wrapped(say(kind, written))
        return found[0].removesuffix(f"{message}```") + f"{said}```"

    page("reference/mistakes.md", MADE.sub(made, PAGE.read_text()))


def test_there_are_mistakes_of_every_kind_and_all_of_them_are_made() -> None:
    found = MADE.findall(PAGE.read_text())
    assert {kind for kind, _, _ in found} == set(KINDS)
    assert len(found) >= LEAST
    assert len(found) == PAGE.read_text().count("<!-- mistake: ")


def test_the_pages_definitions_and_settings_are_right(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    """Or every mistake would be one of theirs."""
    with pytest.raises(AssertionError):
        say("command", "stillwell check")
    assert capsys.readouterr().out.startswith("shop is right")
