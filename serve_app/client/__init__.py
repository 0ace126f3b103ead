"""The Python client of the endpoint and `kallos search`."""
