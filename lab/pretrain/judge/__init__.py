"""Train the mini judge: a small Qwen2.5-VL model that rates and compares studio scenes.

    kallos pretrain judge --out runs/pretrain/judge

Writes a folder that vLLM and transformers load, with its model card.
"""
