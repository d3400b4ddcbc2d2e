"""A complete backend: NumPy's sliding windows and einsum, two dimensions, nothing fancy."""

import numpy as np

from fastconv import activations
from fastconv.backends import Candidate, refuses_direction
from fastconv.window import pad


class ToyKernel:
    workspace_bytes = packed_bytes = 0
    pack_key = "toy"

    def __init__(self, problem):
        self.problem = problem

    def pack(self, weight, bias):
        return weight, np.zeros(len(weight), weight.dtype) if bias is None else bias

    def run(self, array, packed, out, residual=None):
        p, (weight, bias) = self.problem, packed
        spans = [d * (k - 1) + 1 for k, d in zip(p.kernel_size, p.dilation)]
        windows = np.lib.stride_tricks.sliding_window_view(pad(array, p), spans, axis=(2, 3))
        windows = windows[:, :, ::p.stride[0], ::p.stride[1], ::p.dilation[0], ::p.dilation[1]]
        result = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
        out[...] = result if residual is None else result + residual
        activations.apply(p.activation, out)


class ToyBackend:
    name, device, kernel = "toy", "cpu", ToyKernel

    def unavailable(self):
        return None

    def candidates(self, problem):
        return (Candidate("direct"),)

    def refuses(self, problem, candidate):
        if problem.ndim != 2 or problem.groups != 1 or problem.channels_last:
            return "computes 2-D problems without groups, channels first"
        return refuses_direction(problem)

    def seconds(self, problem, candidate, prepared):
        return None

    def bind(self, problem, candidate):
        return self.kernel(problem)


backend = ToyBackend()
