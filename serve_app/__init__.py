"""Serve the search over HTTP, with a page: Ray Serve, FastAPI, one HTML page.

    kallos serve
    kallos serve --host 0.0.0.0 --keys-file keys     # other machines can connect: needs API keys

docs/search.md describes the endpoint.
"""
