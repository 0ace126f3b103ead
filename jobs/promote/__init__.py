"""Point the alias `live` at an encoder that passes the checks, or back at its previous encoder.

    kallos promote                        # the candidate, or a named encoder
    kallos promote --rollback             # back; a second rollback undoes the first

An encoder passes when its checkpoint loads, its table has every image, and all alignments since the first
encoder together cost at most guard.max_recall_drop of recall@10. Before the first promotion `live` is the
baseline. The report's `changed` is false when `live` already names the encoder; --dry-run only reports.
"""
