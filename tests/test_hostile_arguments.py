"""Every argument of every public function, given what nobody expects: always one of four errors, which names the argument,
in one line of less than 500 characters; or an answer, where the value happens to be a right one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import settings
from fastconv.errors import clipped, printable, shown

ERRORS = (TypeError, ValueError, fastconv.Unsupported, fastconv.Unavailable)
X = np.ones((1, 4, 6, 6), np.float32)
W = np.ones((4, 4, 3, 3), np.float32)
B = np.ones(4, np.float32)


class Long:
    def __repr__(self):
        return "long" * 300_000


class Raising:
    """Whatever is asked of it, it raises."""

    def _raise(self, *arguments):
        raise RuntimeError("never ask")

    __repr__ = __str__ = __len__ = __iter__ = __index__ = __bool__ = __float__ = __hash__ = __array__ = __eq__ = _raise


class Odd:
    def __index__(self):
        raise KeyError

    def __array__(self, *arguments, **keywords):
        raise KeyError


def zoo():
    """Fresh each time: generators and lists may be changed."""
    endless = []
    endless.append(endless)
    structured = np.zeros(2, [("a", "f4"), ("b", "i8", (3,))])
    return {
        "None": None, "[]": [], "{}": {}, "()": (), "long repr": Long(), "raising": Raising(), "odd": Odd(), "class": Long,
        "nan": float("nan"), "inf": float("inf"), "10**400": 10**400, "-10**400": -10**400, "10**5000": 10**5000,
        "2**31": 2**31, "2**63": 2**63, "-1": -1, "0": 0, "x*10000": "x" * 10_000, "newlines": "a\nb\r\x1b[31mc\0d",
        "empty": "", "surrogate": "\ud800", "digits": "9" * 5000, "arabic": "١٢", "bytes": b"\0" * 2000,
        "bytearray": bytearray(3), "float": 1.5, "1.0": 1.0, "True": True, "complex": 1j, "np.int8": np.int8(-3),
        "np.float32": np.float32(2), "np.bool": np.bool_(True), "0-d": np.array(2), "0-d float": np.array(2.0),
        "0-d object": np.array(None), "datetime": np.datetime64("2020-01-01"), "datetimes": np.zeros((1, 4, 6, 6), "M8[s]"),
        "timedeltas": np.zeros(4, "m8[s]"), "structured": structured, "record": structured[0],
        "objects": np.array([None, "a"], object), "texts": np.array(["a", "b"]), "set": {1, 2}, "frozenset": frozenset({1}),
        "generator": (i for i in range(3)), "range": range(3), "lambda": lambda: 0, "ragged": [[1, 2], [3]],
        "nested": [[[[1.0] * 3] * 3] * 4] * 4, "endless": endless, "deep": _deep(200), "many": [1] * 10_000,
        "matrix": np.ones((2, 2)), "empty array": np.empty((0, 4)), "bools": np.ones((1, 4, 6, 6), bool),
        "big shape": (2**62,) * 4, "axes": np.ones((1,) * 32, np.float32), "ones": np.ones(2000), "masked": np.ma.ones(3),
        "dict": {"a": 1}, "nones": (None, None), "pairs": ((1, 2, 3), (4,)), "slope": ("leaky_relu", 10**400),
        "slopes": ("leaky_relu", np.ones(3)), "relu": ("relu", Raising()), "three": ("relu", "relu", "relu"), "dots": ...,
        "not implemented": NotImplemented, "type": int, "module": np, "object()": object(), "memoryview": memoryview(b"abc"),
        "longdouble": np.longdouble(1), "complex array": np.ones(4, complex),
    }


def _deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def judged(name, what, function, /, *given, **keywords):
    """Call, and say what is wrong with the error, if there is any: it must be one of ours and name the argument."""
    try:
        function(*given, **keywords)
    except ERRORS as error:
        text = str(error)
        named = any(word in text for word in NAMES.get(name, (name,)))
        if not (0 < len(text) < 500 and text.isprintable() and named):
            return [f"{name}={what}: {len(text)} characters: {text[:250]!r}"]
    except MemoryError:
        return [] if what == "2**31" else [f"{name}={what}: MemoryError"]
    except Exception as error:
        return [f"{name}={what}: {type(error).__name__}: {str(error)[:250]}"]
    return []


NAMES = {  # the words that messages use for an argument; by default its name
    "text": ("text", "problem"), "name": ("name",), "entry point": ("backend",), "n": ("num_threads",),
    "weight": ("weight", "kernel size", "channels", "bias"), "problem": ("problem", "weight"), "input_shape": ("input",),
    "shape": ("input", "channels"), "groups": ("groups", "channels"), "kernel_size": ("kernel",), "problems": ("problem",),
    "input_size": ("input", "kernel does not fit", "padding"), "in_channels": ("channels", "weight", "input"),
    "out_channels": ("channels", "weight", "output"), "batch": ("batch", "input", "output"), "backends": ("backend",),
    "padding": ("padding", "padded", "output"), "descriptor": ("malformed", "must", "channels", "kernel does not fit", "takes"),
}
CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode", "layout", "activation",
                  "residual", "out", "backend", "algorithm", "accuracy")


def each(function, names, **usual):
    wrong = [found for name in names for what, value in zoo().items()
             for found in judged(name, what, function, **{**usual, name: value})]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("ndim", (1, 2, 3))
def test_conv(ndim):
    function = getattr(fastconv, f"conv{ndim}d")
    shape = (6,) * ndim
    each(function, CONV_ARGUMENTS, input=np.ones((1, 4, *shape), np.float32), weight=np.ones((4, 4, *(3,) * ndim), np.float32))


def test_conv_of_a_call_that_was_made_before():
    """The shortcut compares what it is given with what it remembers, and leaves the rest to the validation."""
    fastconv.conv2d(X, W, B)
    each(fastconv.conv2d, CONV_ARGUMENTS, input=X, weight=W, bias=B)


def test_prepare():
    names = [name for name in CONV_ARGUMENTS if name not in ("input", "residual", "out")]
    each(fastconv.prepare, [*names, "input_shape"], weight=W, bias=B, input_shape=(1, 4, 6, 6))
    each(lambda **given: fastconv.prepare(W, **given)(X), [name for name in names if name not in ("weight", "bias")])


def test_prepared():
    made = fastconv.prepare(W, B, input_shape=X.shape)
    each(made, ("input", "residual", "out"), input=X)
    each(made.plan, ("shape",), shape=X.shape)
    assert len(repr(fastconv.prepare(W, stride="x" * 10_000))) < 500


def test_explain():
    each(fastconv.explain, ("problem",))
    each(fastconv.explain, ("ndim", "backend", "algorithm"), problem="mb1_ic4ih6_oc4oh6_kh3ph1")
    each(lambda **given: fastconv.explain(given.pop("input"), given.pop("weight"), **given), ("ndim", *CONV_ARGUMENTS),
         input=X, weight=W)


def test_problem():
    names = ("input_size", "kernel_size", "in_channels", "out_channels", "batch", "groups", "stride", "padding", "dilation",
             "padding_mode", "dtype", "layout", "direction", "bias", "residual", "activation", "accuracy", "name", "count")
    usual = dict(input_size=(6, 6), kernel_size=(3, 3), in_channels=4, out_channels=4)
    each(fastconv.ConvProblem, names, **usual)
    from_shapes = fastconv.ConvProblem.from_shapes
    for what, value in zoo().items():
        assert not judged("input", what, from_shapes, value, (4, 4, 3, 3), ndim=2)
        assert not judged("weight", what, from_shapes, (1, 4, 6, 6), value, ndim=2)


PLAIN = "mb1_ic4ih6_oc4oh6_kh3ph1"
TEXTS = [
    "mb1", "x" * 10_000, PLAIN * 1000, "mb" + "9" * 5000 + "_ic4ih6_oc4oh6_kh3ph1", f'{PLAIN}_n"a*{"9" * 5000}"',
    f'{PLAIN}_n"a\x1b[2Jb"', f'{PLAIN}_n"a\0b"', f'{PLAIN}_n"a\nb"', f'{PLAIN}_n"a\u202eb"',
    "--dt=f32", "--" + "y" * 5000 + "=1 mb1",
    f"--attr-post-ops=relu:-- {PLAIN}", f"--attr-post-ops=relu:1e999 {PLAIN}", f"--attr-post-ops=relu:. {PLAIN}",
    "--attr-post-ops=" + "relu+" * 5000 + " " + PLAIN, PLAIN + "_" * 100_000, '"' * 10_001, 'n""', "mb-1_ic4ih6_oc4oh6_kh3ph1",
    "--padding-mode=" + "z" * 9000 + " " + PLAIN, f"--accuracy=\x1b {PLAIN}", "ic0ih0_oc0oh0_kh0",
    "mb1_ic4ih6_oc4oh99999999999999999999_kh3", "mb1_g0_ic4ih6_oc4oh6_kh3ph1", f"{PLAIN}sh0", f"{PLAIN}dh-5",
    "mb١_ic4ih6_oc4oh6_kh3ph1",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_problem_texts(text):
    assert not judged("descriptor", text[:40], fastconv.ConvProblem.from_text, text)


def test_from_text_and_check():
    each(fastconv.ConvProblem.from_text, ("text",))
    usual = dict(problems=["mb1_ic1ih3_oc1oh1_kh3"], backends=["naive"])
    each(lambda problems: problems is None or fastconv.check(problems, ["naive"]), ("problems",))  # None: the whole matrix
    each(fastconv.check, ("quick",), **usual)
    each(fastconv.check, ("repeats",), problems=[])
    each(fastconv.check, ("backends",), **usual)


def test_settings():
    def within(**given):
        with fastconv.config(**given):
            fastconv.conv2d(X[:, :, :5], W)

    before = settings.current()
    names = [name for name in settings.Changes.__annotations__ if name not in ("autotune", "wisdom", "verbose")]
    with fastconv.config():
        each(fastconv.set_num_threads, ("n",))
    each(within, names)
    for name in ("autotune", "wisdom", "verbose"):
        for what, value in zoo().items():
            if isinstance(value, bool) or name == "wisdom" and (value is None or isinstance(value, str)):
                continue
            assert not judged(name, what, within, **{name: value})
    with pytest.raises(TypeError, match="unknown settings"):
        within(**{"y" * 1000: 1})
    fastconv.set_num_threads(before.num_threads)


def test_enable_backend():
    for what, value in zoo().items():
        assert not judged("entry point", what, fastconv.enable_backend, value)


@pytest.mark.parametrize("value", ("9" * 20, "9" * 5000, "١٢", "0", "-1", "8193", "1.0", "0x4", "²"))
def test_a_number_of_threads_from_the_environment(value):
    code = "import fastconv; fastconv.get_num_threads()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={
        "FASTCONV_NUM_THREADS": value, "PYTHONPATH": str(Path(fastconv.__file__).parents[1])})
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: FASTCONV_NUM_THREADS must be a positive integer, at most") and len(last) < 300


def test_an_unknown_algorithm_is_one_line():
    known = "broadcast, col2im, depthwise, depthwise_input, direct, dot, fft, gemm, grouped, im2col, inner, outer, pairs, " \
            "winograd, winograd_weight"
    expected = f"^algorithm must be one of {known}, got 'nosuch'$"
    for backend in ("auto", *(name for name, reason in fastconv.backends().items() if reason is None and name != "cuda")):
        with pytest.raises(ValueError, match=expected):
            fastconv.conv2d(X, W, backend=backend, algorithm="nosuch")
    with pytest.raises(fastconv.Unsupported, match="backend 'naive' with algorithm 'winograd' does not compute"):
        fastconv.conv2d(X, W, backend="naive", algorithm="winograd")


def test_a_refusal_by_all_is_short():
    problem = fastconv.ConvProblem.from_text("--accuracy=strict mb1_ic4ih6_oc4oh4_kh3_n\"" + "n" * 3000 + '"')
    for algorithm in ("winograd", "depthwise", "fft"):
        with pytest.raises(fastconv.Unsupported) as caught:
            fastconv.explain(problem, algorithm=algorithm)
        assert len(str(caught.value)) < 500 and ("strict" in str(caught.value) or "channel" in str(caught.value))


def test_how_messages_show_values():
    assert shown((1, 0)) == "(1, 0)" and shown("a\nb") == r"'a\nb'" and len(shown("x" * 10_000)) == 100
    assert shown(10**5000) == "an integer of 16610 bits" and len(shown(Long())) == 100 and "Raising" in shown(Raising())
    assert printable("a\x1b[0m\u202eb\n") == r"a\x1b[0m\u202eb\n" and printable("Zürich") == "Zürich"
    assert clipped("abc", 3) == "abc" and clipped("a" * 50 + "z" * 50, 30) == "a" * 17 + "..." + "z" * 10
