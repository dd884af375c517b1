"""Partitions of a device's compute units: `table` says which are legal, `cpu` makes the streams that run on them."""
