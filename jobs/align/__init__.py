"""Align an encoder with preferences and register the result as `candidate`.

    kallos align
    kallos align --run-id RUN,feedback      # one run of `kallos label`, and people's choices on the page

Reads `preferences`, `images` and `embeddings_<parent>`. Writes an open_clip folder
`<out>/encoders/<fingerprint>` and a row in `encoders`. The training state is in `<out>/align/<run>`. The name
of the run is a hash of everything that determines its result, so the same command resumes a killed run, or
finds it finished.
"""
