"""The engine process: one per device; owns weights, KV cache and streams. `loop` runs it, the rest are its parts.

`request`, `blocks`, `batch` and `scheduler` import no torch: the simulator and the tests run them on any clock.
"""
