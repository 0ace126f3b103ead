"""Train the mini rephraser: a small language model that rephrases queries.

    kallos pretrain rephraser --out runs/pretrain/rephraser
    kallos pretrain rephraser --measure models/mini/rephraser
"""
