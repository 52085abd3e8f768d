"""The HTTP service: the only room that knows the web framework. The contract is HTTP API v1."""
