class _B:
    name="cython"; device="cpu"
    def unavailable(self): return "stub"
backend=_B()
