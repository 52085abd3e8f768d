"""What runs inside of the peers' processes. Only their environments import these files."""
