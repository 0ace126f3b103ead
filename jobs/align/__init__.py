"""Align an encoder with preferences and register the result as `candidate`.

    kallos align
    kallos align --run-id RUN,feedback      # one run of `kallos label`, and people's choices on the page

Reads `preferences`, `images` and `embeddings_<parent>`. Writes an open_clip folder
`<out>/encoders/<fingerprint>` and a row in `encoders`. The training state is in `<out>/align/<run>`. The name
of the run is a hash of everything that determines its result, so the same command resumes a killed run, or
finds it finished.

The row also has the nulls of the alignment, a constant suffix and an axis that were fitted to the same
preferences (`actors.nulls`).

Preferences and captions of images that were deleted or, in mode `both`, cannot be read are skipped, with a
count on stderr.

`encoders` has the address of a folder below the store's parent relative to the store. Move or copy them
together, and every verb finds the encoder. An encoder elsewhere keeps its absolute path; if it has moved, run
`kallos ingest` with its new folder as `encoder.model`.
"""
