"""The tree of errors is drawn as it grows."""

import re
from pathlib import Path

import stillwell.client
import stillwell.errors
from stillwell.client import errors

PAGE = Path(__file__).parents[3] / "docs/reference/client.md"
_BRANCH = re.compile(r"(?P<indent>[│ ]*)[├└]── (?P<name>\w+) ")


def drawn(text: str) -> list[tuple[str, str]]:
    """Each error of the drawing, and the one that it hangs from."""
    found: list[tuple[str, str]] = []
    above = ["StillwellError"]
    for match in map(_BRANCH.match, text.splitlines()):
        if match:
            depth = len(match["indent"]) // 4
            found.append((match["name"], above[depth]))
            above[depth + 1 :] = [match["name"]]
    return found


def test_the_tree_in_the_page_and_in_the_code_is_that_of_the_classes() -> None:
    in_code, in_page = drawn(errors.__doc__ or ""), drawn(PAGE.read_text())
    assert in_code == in_page
    for name, base in in_code:
        kind = getattr(stillwell.client, name, None) or getattr(errors, name)
        assert [each.__name__ for each in kind.__bases__] == [base]
    ours = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert {name for name, _ in in_code} == (ours - {"Failure"}) | {"RequestError", "NotDefined"}
    assert {name for name, _ in in_code} <= set(stillwell.client.__all__)
