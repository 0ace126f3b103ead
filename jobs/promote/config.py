"""Options of `kallos promote`."""

import tyro
from pydantic import Field

from cluster import command


class PromoteConfig(command.JobConfig):
    """Make an encoder `live`."""

    encoder: tyro.conf.Positional[str] = Field(
        default="candidate", description="alias or fingerprint of the encoder to promote"
    )
    rollback: bool = Field(
        default=False, description="point `live` back to its previous encoder, and ignore ENCODER"
    )
    dry_run: bool = Field(default=False, description="run the checks and report, but change nothing")
