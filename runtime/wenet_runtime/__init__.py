"""WeNet Runtime: one checkpoint, many operating modes, the mode chosen per request by its budget."""

__version__ = "0.1.0"
