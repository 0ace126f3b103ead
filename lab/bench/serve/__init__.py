"""Compares the search endpoint with direct calls and a plain Flask loop, and disturbs it under load.

    kallos bench serve --num-images 20000
"""
