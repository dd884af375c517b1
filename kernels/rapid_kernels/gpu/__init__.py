"""Kernels for GPUs: decode steps by Triton, memory-bound and sized by the partition's unit count; prompts by libraries.

Every Triton function allocates nothing but its output, synchronises nothing, and has a plain-torch reference. `kernels`
puts them behind the API. Imports triton: import this package only where there is a GPU.
"""
