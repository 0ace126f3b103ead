"""Aligns an encoder with preferences and registers the result as `candidate`.

Tables `preferences`, `images`, `embeddings_<parent>` -> an open_clip folder `<out>/encoders/<fingerprint>`
and a row in `encoders`. Training state lies in `<out>/align/<run>`, where the run is named by the hash of all
that decides its result: the same command started again goes on where it stopped, or finds the work done.

    kallos align --profile mini --run-id RUN
    kallos align --profile mini --run-id RUN,feedback      # and what people chose on the search page
"""
