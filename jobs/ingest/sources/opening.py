"""Opens a source of any kind."""

from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.sources import listing
from jobs.ingest.sources.folder import open_folder
from jobs.ingest.sources.source import Source
from jobs.ingest.sources.tables import open_lance, open_parquet
from jobs.ingest.sources.tars import open_webdataset

OPENERS = {
    "folder": open_folder,
    "parquet": open_parquet,
    "webdataset": open_webdataset,
    "lance": open_lance,
}


def open_source(config: IngestConfig, decode: Stage) -> Source:
    """Check the source and open it. Raises UserError when it is missing, empty or malformed."""
    location = listing.locate(config.source)
    files = listing.files_below(location)
    kind = config.kind or listing.kind_of(location, files, config.source)
    return OPENERS[kind](config, location, files, decode)
