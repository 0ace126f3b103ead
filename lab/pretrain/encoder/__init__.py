"""Trains the mini encoder: an open_clip two-tower model, contrastively, on studio scenes and captions.

    kallos pretrain encoder --out runs/pretrain/encoder

The scenes come from a seed stream that no studio folder uses. Half an hour to an hour on two cores. Writes an
open_clip folder with its tokenizer and a model card.
"""
