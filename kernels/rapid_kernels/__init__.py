"""Kernels of rapid-serve: one API over paged, ragged batches, in plain torch and, for GPUs, in Triton.

Knows shapes and arithmetic; knows no model files, requests, lanes or schedules.
"""

from rapid_kernels.api import Kernels, select
from rapid_kernels.layout import DUMMY_BLOCK, CacheLayout, KVCache, Matrix, Ragged, RopeTable, Scratch, make_ragged

__all__ = [
    "DUMMY_BLOCK",
    "CacheLayout",
    "KVCache",
    "Kernels",
    "Matrix",
    "Ragged",
    "RopeTable",
    "Scratch",
    "make_ragged",
    "select",
]
