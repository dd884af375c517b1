"""The supervisor: the daemon's first process, which starts the others and outlives them. No torch, no ZeroMQ."""
