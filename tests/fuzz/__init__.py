"""What must never harm a daemon: damaged requests, images and bundles. Cases follow from a seed and a number."""
