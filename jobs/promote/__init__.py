"""Lets `live` name an encoder that passed its checks, or what it named before.

    kallos promote                        # the candidate, or the encoder that is named
    kallos promote --rollback             # back; a second time, forth again

Promoted is an encoder that can be loaded, whose table holds every image, and whose alignments, from the first
encoder on, together cost no more of recall@10 than the profile's guard.max_recall_drop. Until something is
promoted, `live` is the baseline. The report's `changed` is false where `live` names the encoder already; with
--dry-run it tells what would be.
"""

import tyro
from pydantic import Field

from jobs import command


class PromoteConfig(command.JobConfig):
    """Which encoder becomes `live`."""

    encoder: tyro.conf.Positional[str] = Field(
        "candidate", description="alias or fingerprint of the encoder to promote"
    )
    rollback: bool = Field(False, description="let `live` name what it named before, whatever is given")
    dry_run: bool = Field(False, description="check and tell, and change nothing")


def run(config: PromoteConfig) -> dict:
    """Check, and move the alias; returns the report. Raises UserError for what must not go live."""
    from jobs.promote.job import promote  # here, so that `--help` does not wait for LanceDB

    return promote(config)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(PromoteConfig, run, argv)
