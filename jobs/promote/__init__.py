"""Lets `live` name an encoder that passed its checks, or what it named before.

    kallos promote                        # the candidate, or the encoder that is named
    kallos promote --rollback             # back; a second time, forth again

Promoted is an encoder that can be loaded, whose table holds every image, and whose alignments, from the first
encoder on, together cost no more of recall@10 than the profile's guard.max_recall_drop. Until something is
promoted, `live` is the baseline. The report's `changed` is false where `live` names the encoder already; with
--dry-run it tells what would be.
"""
