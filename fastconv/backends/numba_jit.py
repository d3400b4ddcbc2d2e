class _B:
    name="numba"; device="cpu"
    def unavailable(self): return "stub"
backend=_B()
