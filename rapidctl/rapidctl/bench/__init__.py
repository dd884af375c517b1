"""Load for a daemon, and what it says: traces, open-loop replay, latency against its objectives, goodput."""
