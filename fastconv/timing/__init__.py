"""Fast or slow: one way to tell, for the benchmark and for tuning.

`paired` lets contenders take turns, `reduced` estimates from smaller problems what would take too long to be run.
"""
