"""The HTTP layer: routes, middleware, API keys, logs and error responses."""
