"""Measures a step of alignment against a naive DPO loop, in turns, in one process with the same threads.

Ours encodes each distinct image and query of a batch once and gathers the pairs' scores; the reference's
scores are read, not computed. The naive loop encodes query, winner and loser of every pair, with the policy
and with the reference. Same model, same optimiser, random pixels, no contrastive loss on either side.

    kallos bench align --profile mini
"""
