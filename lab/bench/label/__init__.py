"""`kallos bench label`: the label stages against vLLM's own offline `LLM`, requests per second.

    python -m lab.bench.label.job --num-requests 1024 --num-runs 3

Both sides answer the same prompts with the same model, engine arguments and sampling, in turns, each turn
with prompts that neither engine has seen. Our side is a Ray Data stage of the label pipeline, rows in to rows
out; the other is one `LLM.chat` call over all the prompts. Start-up is left out of both: each answers one
batch before the clock starts.
"""
