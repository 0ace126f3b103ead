"""`kallos pretrain`: trains the small checkpoints of `models/mini` on the studio."""
