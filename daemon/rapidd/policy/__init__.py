"""Adaptive Resource Management: what to run next, on which units. Pure: no torch, no sockets, no clock of its own."""
