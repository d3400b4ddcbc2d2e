"""Right or wrong: one way to tell, for `fastconv check`, the benchmark (which times nothing unverified), tuning and the tests.

`data` fills arrays, `reference` knows what the outputs must be, `bounds` how far off an algorithm may be, and a `Judge`
compares. `matrix` has the problems that `check` goes through.
"""
