"""Train the small judge: a Qwen2.5-VL of a few million parameters that rates and compares studio scenes.

Input: nothing but the studio. Output: a folder that vLLM and transformers load (config, bfloat16 safetensors,
tokenizer, processor), a model card with the figures measured through vLLM on scenes never trained on, and
`resolved_config.yaml`.

    kallos pretrain judge --out runs/pretrain/judge

Three stages in one loop. The vision tower alone learns to name the latents, with auxiliary heads (dropped
afterwards) and with the language model's own words: from scratch that is many times quicker than through the
answers. Then, the tower fixed, the language model learns to tell which words fit a picture. Then everything
together learns to answer, beside the same heads. A checkpoint is written every few minutes; run again, it
goes on from there.
"""
