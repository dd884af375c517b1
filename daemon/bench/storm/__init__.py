"""Storms: what a trusted service must survive, in its full size. ``python -m bench.storm --help``."""
