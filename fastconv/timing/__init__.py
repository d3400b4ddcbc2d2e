"""Fast or slow: one way to tell, for the benchmark and for tuning.

`paired` lets contenders take turns, `fastest` finds the least that a call takes, `reduced` estimates from smaller problems what
would take too long to be run.
"""
