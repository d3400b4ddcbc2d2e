"""Tuning: measures who is the fastest for a problem on this machine, and writes it down as wisdom (see `fastconv.wisdom`).

`measure` lets candidates race, after `judge` has found their results right; `store` writes the file; `command` is
``fastconv tune``; `automatic` is what ``FASTCONV_AUTOTUNE=1`` turns on. Nothing below imports this unless asked for it.
"""
