"""Compares the stages of `label` with vLLM alone.

    kallos bench label
"""
