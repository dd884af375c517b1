"""Triton kernels for decode steps: memory-bound, sized by the partition's unit count.

Every function has a plain-torch reference beside it, allocates nothing but its output, synchronises nothing, and may be
captured in a graph once it ran with the same shapes. Imports triton: import this package only where there is a GPU.
"""
