"""`kallos pretrain rephraser`: trains the mini language model that rephrases queries, on two CPU cores.

    kallos pretrain rephraser --out runs/pretrain/rephraser
    kallos pretrain rephraser --measure models/mini/rephraser

Synthetic chats (`rephraser_data.py`: the very prompts of `actors/rephraser.py`, the studio's phrases as
answers) -> a byte-level BPE and a Qwen2-architecture causal model in Hugging Face format, with its card.
The loss is that of the answer's tokens alone. Seeded: one config gives one checkpoint on one machine.
The second form trains nothing: it measures a checkpoint and rewrites the figures in its card.
"""
