"""Fixtures for pytest, there wherever Stillwell is installed:

    stillwell_definitions   what the settings' definitions say (a DefinitionsSpec), loaded and checked, once for the run
    stillwell_example       a golden example: a test that takes it runs once for each, and is named after it
    stillwell_stack         real Kafka, real Redis and a folder, started once for the run and ended behind it; its
                            `environment` holds the settings that point at it. Needs `stillwell[local]`

The settings are those of a command that is run where pytest is: `stillwell.toml` there, or the environment.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stillwell.local import LocalStack
    from stillwell.spec import DefinitionsSpec, ExampleSpec


class GoldenExample:
    """One example of the definitions, and whether it holds."""

    def __init__(self, example: "ExampleSpec", definitions: "DefinitionsSpec") -> None:
        self.example = example
        self._definitions = definitions

    def check(self) -> None:
        """Raises AssertionError with everything that becomes of it otherwise than it says."""
        from stillwell.definitions.golden import disagreements

        if found := disagreements(self.example, self._definitions):
            raise AssertionError("\n".join((f"{self.example.file}:", *found)))


def _load() -> "DefinitionsSpec":
    from stillwell.definitions.loading import load_definitions
    from stillwell.settings import ProjectSettings

    return load_definitions(ProjectSettings.load().definitions)


@pytest.fixture(scope="session")
def stillwell_definitions() -> "DefinitionsSpec":
    """The definitions that the settings name. Raises what `stillwell check` prints."""
    return _load()


@pytest.fixture(scope="session")
def stillwell_stack() -> "Iterator[LocalStack]":
    """The embedded stack, empty when the run begins."""
    from stillwell.local import LocalStack

    with LocalStack() as stack:
        yield stack


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each example, where one asks for it."""
    if "stillwell_example" not in metafunc.fixturenames:
        return
    definitions = _load()
    examples = [GoldenExample(example, definitions) for example in definitions.examples]
    ids = [f"{each.example.topic}/{each.example.name}" for each in examples]
    metafunc.parametrize("stillwell_example", examples, ids=ids)
