"""`python -m wenet_runtime.cli` is `wenet-runtime`."""

from wenet_runtime.cli import main

main()
