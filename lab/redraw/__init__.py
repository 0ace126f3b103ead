"""Draws the page of an evaluation or a suite again, from the files in its folder.

    kallos redraw --folder runs/evaluate --num-sheets 24

The previews come from the store of the evaluation, which must be where it was.
"""
