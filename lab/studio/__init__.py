"""Writes a studio: a drawn world of photograph-like images with known accuracy and beauty, made from a seed.

    kallos studio --out runs/studio --seed 0 --num-images 4000
"""
