"""The settings that lead another terminal to the `stillwell dev` that runs, kept in a file for as long as it does."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping

import click


class Exports:
    """Those of one project on this machine."""

    def __init__(self, project: str) -> None:
        from stillwell.local.detached import default_folder

        self._project = project
        self._file = default_folder().parent / "dev" / f"{project}.json"

    def read(self) -> Mapping[str, str]:
        """The settings. Raises UsageError where none runs."""
        kept = self._kept()
        if kept is None:
            raise click.UsageError(
                f"no `stillwell dev` runs for the project {self._project}: start it in another terminal"
            )
        return kept.environment

    def refuse_second(self) -> None:
        """Raises UsageError where one runs already."""
        if kept := self._kept():
            raise click.UsageError(
                f"`stillwell dev` runs already for the project {self._project}, as process {kept.pid}: end it first"
            )

    def write(self, environment: Mapping[str, str]) -> None:
        """This process runs, with these settings. Raises LocalStackError where that cannot be kept."""
        import psutil

        from stillwell.local.detached import write_whole

        kept = _Kept(os.getpid(), psutil.Process().create_time(), dict(environment))
        write_whole(self._file, json.dumps(dataclasses.asdict(kept)))

    def remove(self) -> None:
        """It does not any more."""
        self._file.unlink(missing_ok=True)

    def _kept(self) -> "_Kept | None":
        """What the file says, if the process that wrote it still is."""
        import psutil

        try:
            kept = _Kept(**json.loads(self._file.read_text()))
            return kept if psutil.Process(kept.pid).create_time() == kept.born else None
        except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
            return None


def pointing_here() -> str | None:
    """How this shell is pointed at the `stillwell dev` that runs for the project; None where none does, or it is."""
    from stillwell.errors import SettingsError
    from stillwell.settings import ProjectSettings

    # Whoever has installed too little for `stillwell dev` has none that runs.
    with contextlib.suppress(SettingsError, ModuleNotFoundError, click.UsageError):
        settings = Exports(ProjectSettings.load().project).read()
        if any(os.environ.get(name) != value for name, value in settings.items()):
            return (
                '`stillwell dev` runs for this project; this points the shell at it: eval "$(stillwell dev --exports)"'
            )
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """Which process runs, told from a later one of that id by its birth, and with which settings."""

    pid: int
    born: float
    environment: Mapping[str, str]
