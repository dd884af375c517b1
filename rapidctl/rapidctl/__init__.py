"""rapidctl: the operator's side of rapid-serve. It never imports torch, rapidd or rapid_kernels."""

__version__ = "0.1.0"
