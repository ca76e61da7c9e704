"""Which of a service's processes this one is, and what it was handed by the one that started it."""

import dataclasses
from pathlib import Path
from typing import Self

import msgspec


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """number: of this process among `of`, from 0. sockets: descriptors to listen at; leash: of a pipe that closes when
    whoever started us has ended. restarts: how many of this number have ended before. folder: where the others are met.
    """

    number: int
    of: int
    sockets: tuple[int, ...]
    leash: int
    restarts: int
    folder: Path

    def written(self) -> str:
        """For a command line."""
        return msgspec.json.encode(dataclasses.replace(self, folder=str(self.folder))).decode()  # type: ignore[arg-type]

    @classmethod
    def read(cls, text: str) -> Self:
        """What `written` gave."""
        given = msgspec.json.decode(text)
        return cls(**{**given, "sockets": tuple(given["sockets"]), "folder": Path(given["folder"])})
