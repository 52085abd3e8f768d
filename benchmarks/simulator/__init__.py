"""A trace-driven simulator of one device: arrivals, disturbances, players that choose modes, and what they reach."""
