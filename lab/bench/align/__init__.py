"""Compare the speed of a training step with a plain DPO loop.

    kallos bench align
"""
