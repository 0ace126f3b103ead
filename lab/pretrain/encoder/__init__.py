"""Train the mini encoder: an open_clip two-tower model, contrastively, on studio scenes and captions.

    kallos pretrain encoder --out runs/pretrain/encoder

Writes an open_clip folder with its model card.
"""
