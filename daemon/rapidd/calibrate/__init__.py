"""`rapidd calibrate`: measures what the cost model needs, on the lanes that serve.

`points` says what is worth measuring, `probe` runs it, `session` spends the time, `command` is the command line.
"""
