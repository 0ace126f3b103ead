"""Align an encoder with preferences and register the result as `candidate`.

    kallos align --profile mini --run-id RUN
    kallos align --profile mini --run-id RUN,feedback      # also with people's choices on the search page

Reads `preferences`, `images` and `embeddings_<parent>`. Writes an open_clip folder
`<out>/encoders/<fingerprint>` and a row in `encoders`. The training state is in `<out>/align/<run>`, and the
run's name is a hash of everything that determines its result. So the same command, started again, resumes the
run or finds it finished.
"""
