"""Make an encoder `live` if it passes the checks, or go back to the previous one.

    kallos promote                        # the candidate, or the encoder that you name
    kallos promote --rollback             # the previous encoder; a second rollback undoes the first

An encoder passes if its checkpoint loads, its table has every image that can be read, and all alignments
since the first encoder together cost at most `guard.max_recall_drop` of the guard's recall. Before the first
promotion `live` is the baseline. In the report, `changed` is false if `live` already was this encoder.
"""
