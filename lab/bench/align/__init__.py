"""Compares a training step with a plain DPO loop.

    kallos bench align --profile mini
"""
