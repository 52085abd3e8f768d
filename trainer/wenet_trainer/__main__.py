"""`python -m wenet_trainer`, which is what torchrun starts."""

from wenet_trainer.cli import main

main()
