"""The page on testing: its blocks pass, as the tests of a project that was just begun."""

import re
import subprocess
import sys
from pathlib import Path

from stillwell.cli.main import run

PAGE = Path(__file__).parents[2] / "docs/reference/testing.md"


def test_every_block_of_the_page_passes_over_the_starter_project(tmp_path: Path) -> None:
    marked = re.findall(r"<!-- test -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(marked) == PAGE.read_text().count("```python") == 3
    assert run(["init", str(tmp_path)]) == 0
    (tmp_path / "tests/test_page.py").write_text("\n\n".join(marked))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
