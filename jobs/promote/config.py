"""Options of `kallos promote`."""

import tyro
from pydantic import Field

from cluster import command


class PromoteConfig(command.JobConfig):
    """Which encoder becomes `live`."""

    encoder: tyro.conf.Positional[str] = Field(
        "candidate", description="alias or fingerprint of the encoder to promote"
    )
    rollback: bool = Field(False, description="let `live` name what it named before, whatever is given")
    dry_run: bool = Field(False, description="check and tell, and change nothing")
