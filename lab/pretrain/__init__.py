"""Trains the small checkpoints of `models/mini` on the studio: the verb `kallos pretrain`."""
