"""Servers beside which ours is measured: each is one file here and, for what runs inside of it, one in `apps`."""
