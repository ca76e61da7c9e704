"""`stillwell verify`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import counting_progress, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stillwell.storage import ObjectStore


@click.command()
@json_option
def verify(as_json: bool) -> int:
    """Prove that every offset consumed is at rest exactly once.

    Walks every chain from its beginning, reads every linked file, and checks coverage, checksums, row counts and
    duplicates. Names each object that is missing, forged, altered or broken; exit code 1 if there is any, or if there
    is no chain at all.
    """
    from stillwell.counting import counted
    from stillwell.settings import Settings
    from stillwell.storage import open_store
    from stillwell.verify import verify as verify_store

    settings = Settings.load()
    store = open_store(settings.offline_root)
    with counting_progress("links") as advance:
        report = verify_store(store, advance)
    logs = _logs(store)
    is_good = report.is_good and bool(report.partitions)
    if as_json:
        print_json(
            {
                "good": is_good,
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "unlinked": list(report.unlinked),
                "overlaps": [
                    {**dataclasses.asdict(each), "earlier": str(each.earlier), "later": str(each.later)}
                    for each in report.overlaps
                ],
                "partitions": [
                    {
                        "partition": str(total.id),
                        **{name: getattr(total, name) for name in _TOTALS},
                        "views": {
                            f"{view}@{version}": dataclasses.asdict(of_view)
                            | ({"predictions": logs[view, version]} if (view, version) in logs else {})
                            for (view, version), of_view in total.views.items()
                        },
                    }
                    for total in report.partitions
                ],
            }
        )
        return 0 if is_good else 1
    for total in report.partitions:
        click.echo(
            f"{total.id}: offsets {total.start}→{total.end} in {counted(total.links, 'link')}: "
            f"{counted(total.records, 'record')}, {counted(total.gaps, 'gap')}, {total.expired:,} expired; "
            f"{counted(total.files, 'file')}, {counted(total.size, 'byte')}"
        )
        for (view, version), of_view in total.views.items():
            outputs = logs.get((view, version))
            named = f"{view} version {version}" if outputs is None else f"predictions of {view} ({', '.join(outputs)})"
            click.echo(
                f"    {named}: {counted(of_view.rows, 'row')} of "
                f"{counted(of_view.offsets_with_rows, 'record')}, {of_view.filtered:,} filtered, "
                f"{of_view.rejected:,} rejected"
            )
    for finding in report.findings:
        click.echo(f"{finding.kind}: {finding.path}: {finding.error}", err=True)
    for overlap in report.overlaps:
        click.echo(
            f"offsets {overlap.start}→{overlap.end} are at rest under {overlap.earlier} and {overlap.later}, which are "
            "one partition in Kafka: `stillwell topics adopt` reads a topic anew. Who reads files counts one of them"
        )
    if report.unlinked:
        left = counted(len(report.unlinked), "file")
        click.echo(
            f"In no link: {left}, left by crashes or on the way there; nobody reads them. `stillwell sweep` removes "
            "those that never will be in one"
        )
    if not report.partitions and not report.findings:
        click.echo(
            f"stillwell: there is no chain at all under {settings.offline_root}, so that nothing is proved: no worker "
            "has begun there yet, or STILLWELL_PROJECT, STILLWELL_NAMESPACE or STILLWELL_OFFLINE_URL is not that of "
            "the workers",
            err=True,
        )
        return 1
    records = sum(total.records for total in report.partitions)
    verdict = (
        "every offset is accounted for exactly once" if report.is_good else counted(len(report.findings), "finding")
    )
    click.echo(f"{counted(len(report.partitions), 'partition')}, {counted(records, 'record')}: {verdict}")
    return 0 if report.is_good else 1


def _logs(store: "ObjectStore") -> "Mapping[tuple[str, int], Sequence[str]]":
    """The outputs of each log of predictions, by its view and version. Of a registry that cannot be read, nothing: what
    is at rest is proved without it."""
    from stillwell.errors import FormatError, StoreError
    from stillwell.known_views import logs_of_predictions

    try:
        return {(view, version): outputs for (view, version), outputs in logs_of_predictions(store).items()}
    except (FormatError, StoreError):
        return {}


_TOTALS = ("start", "end", "links", "files", "size", "records", "gaps", "expired")
