"""Compare the search endpoint with direct calls and a plain Flask server, and test it under load.

    kallos bench serve --num-images 20000

Under load, the benchmark promotes encoders and kills replicas, and counts failed requests and lost feedback.
"""
