"""The search endpoint and its page: Ray Serve, FastAPI, one HTML page."""
