"""`make demo`: the whole road on real images, from training to a budget that holds under load."""
