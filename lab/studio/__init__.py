"""Write a studio: a drawn world of photograph-like images with known accuracy and beauty, made from a seed.

    kallos studio --out runs/studio --seed 0 --num-images 4000

The folder has the images with captions, queries, simulated votes and the truth; `lab/studio/job.py` lists its
files.
"""
