"""What WeNet is compared with, trained and measured by the same code: flexible width, flexible depth.

Peers are for comparison only: they are never exported or served. Networks trained for one configuration
alone, grouped or narrow, need no class of their own: they are these networks with a fixed configuration.
"""
