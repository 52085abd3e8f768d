"""The other side of HTTP API v1: what asks a server, alone or as a load. It knows no engine and no bundle."""
