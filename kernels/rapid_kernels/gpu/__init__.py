"""Kernels for GPUs, by Triton and Gluon: all attention, and decode's products, sized by the partition's unit count.

Prompts are multiplied by libraries.

Every Triton function allocates nothing but its output, synchronises nothing, and has a plain-torch reference. `kernels`
puts them behind the API. Imports triton: import this package only where there is a GPU.
"""
