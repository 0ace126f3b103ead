"""Draw the page of an evaluation or a suite again, from the files in its folder.

    kallos redraw --folder runs/evaluate --num-sheets 24

No model runs. The previews are read from the store of the evaluation, at the same address as before.
"""
