"""Opens a source of any kind."""

from collections import Counter
from dataclasses import replace

from cluster import terminal
from cluster.errors import UserError, shown
from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.folder import open_folder
from jobs.ingest.sources.listing import Listing, Location
from jobs.ingest.sources.source import Source
from jobs.ingest.sources.tables import open_lance, open_parquet
from jobs.ingest.sources.tars import open_webdataset

OPENERS = {
    "folder": open_folder,
    "parquet": open_parquet,
    "webdataset": open_webdataset,
    "lance": open_lance,
}
SELECT = {"folder": listing.pictures_of, "parquet": listing.parquet_of, "webdataset": listing.tars_of}


def open_source(config: IngestConfig, decode: Stage) -> Source:
    """Check the source and open it. Raises UserError when it is missing, empty or malformed."""
    location = listing.locate(config.source)
    found = listing.list_files(location, config.include_hidden)
    try:
        kind = config.kind or listing.kind_of(location, found.files, config.source)
        source = OPENERS[kind](config, location, found.files, decode)
    except UserError as error:
        if not found.rejects or found.files:
            raise
        path, reason = found.rejects[0]
        raise UserError(f"{error} '{listing.printable(path)}' cannot be read: {reason}.") from None
    if not config.kind:
        _say_choice(config, kind, found)
    if kind == "lance":  # the files are parts of one table
        return source
    return _with_listing(source, location, found)


def _say_choice(config: IngestConfig, kind: str, found: Listing) -> None:
    """One line: which kind was recognised, and which files of the other kinds are left out."""
    numbers = {other: len(select(found.files)) for other, select in SELECT.items()}
    number = numbers.pop(kind, len(found.files))
    left = [f"{count} of {other}" for other, count in numbers.items() if count and kind != "lance"]
    more = f"; left out: {', '.join(left)} (--kind chooses)" if left else ""
    terminal.say(f"ingest: {shown(config.source)} is read as {kind}, files: {number}{more}")


def _with_listing(source: Source, location: Location, found: Listing) -> Source:
    """The source with what its listing found besides the files to read."""
    listed = [(location.uri(listing.printable(path)), reason) for path, reason in found.rejects]
    rejects = [(listing.printable(uri), listing.printable(reason)) for uri, reason in listed + source.rejects]
    ignored = found.ignored
    if source.kind != "folder":  # a folder's other files are ignored when their content has been read
        others = set(found.files) - set(SELECT[source.kind](found.files))
        ignored = ignored + Counter(listing.ending(path) for path, _ in others)
    num_files = len(found.files) + len(listed) + found.ignored.total()
    num_inputs = None if source.num_inputs is None else source.num_inputs + len(listed)
    return replace(
        source,
        num_inputs=num_inputs,
        rejects=rejects,
        num_files=num_files,
        ignored=ignored,
    )
