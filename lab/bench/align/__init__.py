"""Compare the speed of a training step with a plain DPO loop.

    kallos bench align

The report has the ratios of pairs per second, in both modes.
"""
