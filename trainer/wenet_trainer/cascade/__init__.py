"""The confidence cascade's calibration: which modes may answer for which, and from what score on."""
