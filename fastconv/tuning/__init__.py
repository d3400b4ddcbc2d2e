"""Tuning: measures who is the fastest for a problem on this machine, and writes it down as wisdom (see `fastconv.wisdom`).

`measure` lets candidates race, after a judge (see `fastconv.verify`) has found their results right; `store` writes the file;
`automatic` is what ``FASTCONV_AUTOTUNE=1`` turns on. `fastconv.cli.tune` is ``fastconv tune``.
"""
