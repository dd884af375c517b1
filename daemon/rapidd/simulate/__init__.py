"""`rapidd simulate`: the engine's own scheduler, block pool, control and policies over a trace on a virtual clock.

Only the device is missing: a batch takes as long as the profile's cost model says. No torch.
"""
