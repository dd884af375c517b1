"""Counters and quantiles of the daemon, sensors of its device. No torch."""
