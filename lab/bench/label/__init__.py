"""Compare the speed of the model stages of `kallos label` with vLLM alone.

    kallos bench label
"""
