"""Partitions of a device's compute units: `table` says which are legal, `cpu`, `cuda` and `hip` make the streams
that run on them.
"""
