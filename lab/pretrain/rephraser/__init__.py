"""Train the mini rephraser: a small language model that rephrases queries.

    kallos pretrain rephraser --out runs/pretrain/rephraser
    kallos pretrain rephraser --measure models/mini/rephraser

Writes a folder that vLLM and transformers load, with its model card. With --measure it trains nothing, and
writes the figures of that folder's card again.
"""
