class _B:
    name="cuda"; device="cuda"
    def unavailable(self): return "stub"
backend=_B()
