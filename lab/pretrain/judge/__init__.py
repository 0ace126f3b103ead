"""Train the mini judge: a small Qwen2.5-VL model that rates and compares studio scenes.

    kallos pretrain judge --out runs/pretrain/judge
"""
