"""What the benchmark runs: suites of problems, contenders by name, and the smaller problems that estimates are made from."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastconv import ops
from fastconv.backends import registry
from fastconv.bench import machine, record, suites
from fastconv.bench.contenders import BackendContender, chosen
from fastconv.bench.results import Results, Row
from fastconv.errors import Unavailable
from fastconv.problem import DIRECTIONS, ConvProblem
from fastconv.timing import reduced
from fastconv.verify.data import same_arrays

ROOT = Path(__file__).parents[1]
SMALL = ConvProblem.from_text('mb1_ic4ih9iw9_oc6oh9ow9_kh3kw3sh1sw1ph1pw1_n"small"')
OTHER = ConvProblem.from_text('mb2_ic3ih8iw8_oc5oh6ow6_kh3kw3sh1sw1ph0pw0_n"other*3"')


# ---- suites


@pytest.mark.parametrize("name", suites.names())
def test_suites_parse_and_round_trip(name: str) -> None:
    problems = suites.load([name])
    assert len({p.name for p in problems}) == len(problems), "names tell problems apart"
    for problem in problems:
        again = ConvProblem.from_text(problem.text)
        assert again == problem and (again.name, again.count) == (problem.name, problem.count)


def test_suites_are_complete() -> None:
    assert set(suites.names()) == {
        "quick", "layers", "images", "audio", "video", "batches", "training", "backward", "transposed", "lenet", "deeplab",
        "inception", "varied", "all", *NETWORKS}
    layers = suites.load(["layers"])
    assert len(layers) == 36
    assert set(layers[:12]) <= set(suites.load(["resnet50"]))
    quick = suites.load([suites.DEFAULT])
    assert {p.ndim for p in quick} == {1, 2, 3} and max(p.batch for p in quick) > 1
    assert any(p.groups == p.in_channels > 1 for p in quick) and any(max(p.dilation) > 1 for p in quick)


# name: convolutions, their multiply-adds in millions (rounded), parameters of the whole network. The last are what PyTorch's
# and Keras' pages state; GoogLeNet's is of PyTorch's, which has 3x3 where the paper has 5x5.
NETWORKS = {
    "resnet50": (53, 4087, 25_557_032),
    "vgg16": (13, 15347, 138_357_544),
    "alexnet": (5, 656, 61_100_840),
    "googlenet": (57, 1582, 6_624_904),
    "mobilenet_v2": (52, 299, 3_504_872),
    "efficientnet_b0": (81, 385, 5_288_548),
    "convnext_tiny": (58, 4455, 28_589_128),
    "unet": (23, 48096, 31_030_658),
}
CLASSES = 1000


def _beside_weights(name: str, layers: list[ConvProblem]) -> int:
    """Parameters that are no weights of convolutions: biases, normalisation, fully connected layers."""
    outputs = sum(p.result_channels * p.count for p in layers)
    squeezed = sum(p.out_channels * p.count for p in layers if p.input_size == (1, 1))
    depthwise = sum(p.out_channels * p.count for p in layers if p.groups > 1)
    downsampled = sum(p.in_channels * p.count for p in layers if p.kernel_size == (2, 2))
    classifier = (layers[-1].out_channels + 1) * CLASSES
    hidden = 4096 * 4097 + 4097 * CLASSES
    return {
        "resnet50": 2 * outputs + 2049 * CLASSES,  # scale and shift of batch normalisation behind each convolution
        "vgg16": outputs + (512 * 7 * 7 + 1) * 4096 + hidden,  # biases
        "alexnet": outputs + (256 * 6 * 6 + 1) * 4096 + hidden,
        "googlenet": 2 * outputs + 1025 * CLASSES,
        "mobilenet_v2": 2 * outputs + classifier,
        "efficientnet_b0": 2 * outputs - squeezed + classifier,  # a bias in squeeze-and-excitation, no normalisation
        # biases; layer normalisation before pointwise layers, downsampling, behind the stem and the end; a scale per block
        "convnext_tiny": outputs + 3 * depthwise + 2 * downsampled + 2 * 96 + 2 * 768 + 769 * CLASSES,
        "unet": outputs,
    }[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_add_up_to_what_is_published(name: str) -> None:
    layers = suites.load([name])
    convolutions, millions, parameters = NETWORKS[name]
    assert sum(p.count for p in layers) == convolutions
    assert round(sum(p.flops * p.count for p in layers) / 2e6) == millions
    volumes = {25: 9} if name == "googlenet" else {}
    weights = sum(p.out_channels * (p.in_channels // p.groups) * volumes.get(p.kernel_volume, p.kernel_volume) * p.count
                  for p in layers)
    assert weights + _beside_weights(name, layers) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_networks_follow_each_other(name: str) -> None:
    """Each map is the output of an earlier layer, perhaps pooled, or of a transposed one, or the picture."""
    layers = suites.load([name])
    sizes = {layers[0].input_size[0]} | {p.input_size[0] for p in layers if p.direction == "backward_input"}
    for problem in layers:
        size, made = problem.input_size[0], problem.output_size[0]
        if problem.direction == "backward_input":
            size, made = made, size
        pooled = {s // 2 for s in sizes} | {(s - 3) // 2 + 1 for s in sizes}
        assert size in sizes | pooled | {1}, problem.name
        sizes.add(made)


def test_parts_of_networks_add_up() -> None:
    inception = suites.load(["inception"])
    assert sum(p.count for p in inception) == 34
    assert {p.kernel_size for p in inception} == {(1, 7), (7, 1), (1, 3), (3, 1)}
    assert all(p.output_size == p.input_size for p in inception)
    c3d = [p for p in suites.load(["video"]) if "_c3d_" in p.name]
    assert round((sum(p.flops for p in c3d) + c3d[-1].flops) / 2e8) == 385  # 38.5 billion, its last shape twice
    deeplab = suites.load(["deeplab"])
    assert {p.dilation[0] for p in deeplab if p.in_channels == 2048} == {1, 6, 12, 18, 24, 36}
    assert all(p.output_size == p.input_size for p in deeplab)


def test_suites_are_what_they_are_named_after() -> None:
    images, audio, video, batches = (suites.load([name]) for name in ("images", "audio", "video", "batches"))
    assert {p.ndim for p in images} == {2} and {p.ndim for p in audio} == {1} and {p.ndim for p in video} == {3}
    assert all(p.groups == p.in_channels == p.out_channels in (1, 3) and p.output_size == p.input_size for p in images)
    assert {max(p.dilation) for p in audio} >= {2**i for i in range(10)}
    causal = [p for p in audio if "wavenet_d" in p.name or "tcn" in p.name]
    assert causal and all(p.padding == ((p.dilation[0] * (p.kernel_size[0] - 1), 0),) for p in causal)
    assert all(8 <= p.batch <= 64 for p in batches)
    backward = suites.load(["backward"])
    layers = [p for p in suites.load(["layers"]) if not p.name.startswith("img_")]
    for i, direction in enumerate(("backward_input", "backward_weight")):
        some = backward[i * len(layers):(i + 1) * len(layers)]
        assert [p.batch for p in some] == [8] * len(layers) and {p.direction for p in some} == {direction}
        assert [p.output_size for p in some] == [p.output_size for p in layers]


STEP = ("training", "training (forward)", "training (gradients of inputs)", "training (gradients of weights)")


def test_a_training_step_is_a_network_in_three_directions() -> None:
    """Nobody needs the gradient of the images."""
    resnet = suites.load(["resnet50"])
    found = suites.networks(["training"])
    assert tuple(found) == STEP
    step, *directions = found.values()
    assert [layer for layers in directions for layer in layers] == sorted(step, key=lambda p: DIRECTIONS.index(p.direction))
    for direction, layers in zip(DIRECTIONS, directions, strict=True):
        expected = [dataclasses.replace(p, batch=8, direction=direction, bias=direction == "forward") for p in resnet]
        assert layers == expected[direction == "backward_input":]
        assert [p.count for p in layers] == [p.count for p in resnet][direction == "backward_input":]


def test_parts_of_networks_are_told_by_their_kinds(tmp_path: Path) -> None:
    mixed, transposed = tmp_path / "mixed.txt", tmp_path / "transposed.txt"
    mixed.write_text('mb1_ic3ih8oc4kh3_n"a*2"\n--dir=BWD_W mb1_ic3ih8oc4kh3_n"b*2"\n')
    transposed.write_text('--dir=BWD_D mb1_ic3ih8oc4kh3_n"a*2"\n--dir=BWD_D mb2_ic3ih8oc4kh3_n"b*2"\n')
    found = suites.networks(map(str, (mixed, transposed)))
    assert {Path(name).name: [p.name for p in layers] for name, layers in found.items()} == {
        "mixed.txt": ["a", "b"], "mixed.txt (forward)": ["a"], "mixed.txt (gradients of weights)": ["b"],
        "transposed.txt": ["a", "b"]}


PUBLISHED = {  # sizes that come out where they are not the stride times what goes in
    "fcn32s": 544, "fcn8s_4x4s2": 70, "fcn8s_16x16s8": 568, "dcgan_4x4_": 4, "stylegan2": 65, "unet_2x2s2_1024": 56,
    "unet_2x2s2_128": 392, "espcn": 510}


def test_transposed_layers_are_what_their_names_say() -> None:
    """Kernel, stride, channels and size of what goes in; what comes out is as large as published, or by the stride larger."""
    problems = suites.load(["transposed"])
    assert len(problems) == 20 and {p.direction for p in problems} == {"backward_input"}
    assert {p.ndim for p in problems} == {1, 2, 3} and {p.batch for p in problems} == {1}
    for p in problems:
        said = re.fullmatch(r"\w+?_(dw)?([\dx]+)(?:s(\d+))?_(\d+)(?:-(\d+))?@([\dx]+)", p.name)
        assert said is not None, p.name
        depthwise, kernel, stride, inputs, outputs, size = said.groups()
        assert p.kernel_size == tuple(map(int, kernel.split("x"))) and p.stride == (int(stride or 1),) * p.ndim
        assert (p.out_channels, p.in_channels) == (int(inputs), int(outputs or inputs))
        assert p.groups == (p.in_channels if depthwise else 1)
        sizes = [int(each) for each in size.split("x")]
        assert p.output_size == tuple([sizes[0]] + sizes[-1:] * (p.ndim - 1)), p.name
        expected = next((to for name, to in PUBLISHED.items() if p.name.startswith(name)), None)
        assert p.input_size == tuple(n * s if expected is None else expected for n, s in zip(p.output_size, p.stride)), p.name


def test_images_show_how_time_grows_with_size() -> None:
    sizes: dict[tuple[object, ...], set[int]] = {}
    for p in suites.load(["images"]):
        sizes.setdefault((p.kernel_size, p.in_channels), set()).add(p.input_size[0])
    complete = [kernel for kernel, found in sizes.items() if {256, 512, 1024, 2048, 4096} <= found]
    assert {((3, 3), 1), ((15, 15), 1), ((3, 3), 3)} <= set(complete)


def test_all_is_everything_once_and_counts_nothing() -> None:
    everything = suites.load(["all"])
    assert len(set(everything)) == len(everything)
    assert set(everything) == set(suites.load(name for name in suites.names() if name != "all"))
    assert {p.count for p in everything} == {1}


def test_networks_are_told_by_their_counts(tmp_path: Path) -> None:
    found = suites.networks([*suites.names(), SMALL.text, OTHER.text])
    assert set(found) == {*NETWORKS, "inception", *STEP, "unet (forward)", "unet (transposed)"}
    assert found["vgg16"] == suites.load(["vgg16"])
    net, plain = tmp_path / "net.txt", tmp_path / "plain.txt"
    net.write_text('mb1_ic3ih8oc4kh3_n"a*1"  # once\nmb1_ic4ih6oc4kh3_n"b"\n')
    plain.write_text('# 3*3\nmb1_ic3ih8oc4kh3_n"a*b"  # twice: *2\nmb1_ic4ih6oc4kh3_nc\n')
    assert [[p.name for p in layers] for layers in suites.networks([str(net), str(plain)]).values()] == [["a", "b"]]
    with pytest.raises(ValueError, match="no suite or file 'resnet'"):
        suites.networks(["resnet"])


def test_loads_files_and_texts_each_problem_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(f"# mine\n\n{SMALL.text}  # a comment\n--dt=f64 {OTHER.text}\n")
    loaded = suites.load([str(file), SMALL.text])
    assert loaded == [SMALL, dataclasses.replace(OTHER, dtype="float64")]


@pytest.mark.parametrize(("text", "message"), [
    ("mb1_ic3ih8oc4kh3\n\nmb1_ic3xx8oc4kh3\n", "mine.txt, line 3: malformed problem"),
    ("mb1_g2_ic3ih8oc4kh3", "line 1: groups must divide"),
    ("# nothing\n", "contains no problems"),
])
def test_malformed_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        suites.load([str(tmp_path / "mine.txt")])


def test_binary_files_and_unknown_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        suites.load([str(tmp_path / "binary")])
    with pytest.raises(ValueError, match="no suite or file 'resnet'.*all.*layers.*quick, resnet50"):
        suites.load(["resnet"])


# ---- the same as a pytest-benchmark suite


def _pytest_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("pytest_benchmark")
    pytest.importorskip("threadpoolctl")
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}  # no worker of others
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "benchmarks", *arguments],
                          cwd=ROOT, capture_output=True, text=True, env=alone)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a run printed, and the record it saved."""
    file = tmp_path_factory.mktemp("benchmarks") / "saved.json"
    slow = 'mb64_ic64ih56_oc64oh56_kh3ph1_n"slow"'
    done = _pytest_benchmarks(
        "--suite", SMALL.text, "--suite", slow, "--fastconv-backend", "naive,im2col", "--deselect",
        "benchmarks/test_suites.py::test_convolution[slow-im2col]", "--benchmark-max-time=0.02", f"--benchmark-json={file}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, file


def test_pytest_benchmark_verifies_and_times_what_is_fast_enough(saved: tuple[str, Path]) -> None:
    output, file = saved
    assert "2 passed, 1 skipped" in output and "too slow: a call takes about" in output
    benchmarks = json.loads(file.read_text())["benchmarks"]
    assert [b["name"] for b in benchmarks] == ["test_convolution[small-naive]", "test_convolution[small-im2col]"]
    for benchmark, backend in zip(benchmarks, ("naive", "im2col"), strict=True):
        info = benchmark["extra_info"]
        assert benchmark["group"] == "small" and info["backend"] == info["contender"] == backend
        assert ConvProblem.from_text(info["problem"]) == SMALL
        assert info["flops"] == SMALL.flops and info["verified"] > 0
        assert info["gflops"] == pytest.approx(SMALL.flops / benchmark["stats"]["median"] / 1e9)


def test_pytest_benchmarks_record_names_the_hardware_but_not_the_host(saved: tuple[str, Path]) -> None:
    info = json.loads(saved[1].read_text())["machine_info"]
    assert info["node"] == "" and info["fastconv"]["fingerprint"]
    assert platform.node() not in set(map(str, info.values()))


def test_pytest_benchmark_compares_its_records_with_ours(saved: tuple[str, Path], tmp_path: Path) -> None:
    row = Row(SMALL, contender="im2col", kind="backend", backend="im2col", algorithm="im2col", isa=None, verified=6,
              samples=(1e-4, 2e-4, 3e-4), placements=(0, 0, 1))
    ours = tmp_path / "ours.json"
    record.write(ours, Results(1, "im2col", rows=[row], problems=[SMALL], asked=1), machine.describe())
    done = subprocess.run([sys.executable, "-m", "pytest_benchmark", "compare", str(saved[1]), str(ours)], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "benchmark 'small': 3 tests" in done.stdout


def test_pytest_benchmarks_refuse_unknown_suites() -> None:
    done = _pytest_benchmarks("--suite", "resnet", "--collect-only")
    assert done.returncode != 0 and "no suite or file 'resnet'" in done.stdout and "Traceback" not in done.stdout


# ---- smaller problems


@pytest.mark.parametrize("problem", suites.load(["layers", "quick"]), ids=lambda p: p.name)
def test_reduced_problems_are_smaller_and_of_the_same_kind(problem: ConvProblem) -> None:
    small = reduced.reduced(problem, 1e6)
    assert small.flops < problem.flops or small is problem
    floor = 2 * small.k * int(np.prod(small.output_size[1:]))
    assert small.flops <= max(1e6, floor)
    same = ("kernel_size", "stride", "dilation", "dtype", "layout", "ndim", "k")
    assert all(getattr(small, name) == getattr(problem, name) for name in same)
    assert (small.groups > 1) == (problem.groups > 1) or small.groups == 1


# ---- contenders


def test_contenders_by_name() -> None:
    assert [c.name for c in chosen(["im2col", "naive:direct", "im2col"])] == ["im2col", "naive:direct"]
    assert "im2col" in [c.name for c in chosen()]
    assert all(registry()[c.backend].unavailable() is None for c in chosen())
    with pytest.raises(ValueError, match="one of .*im2col.* got 'abacus'"):
        chosen(["abacus"])


def test_unavailable_contenders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry()["naive"], "unavailable", lambda: "out of patience", raising=False)
    with pytest.raises(Unavailable, match="'naive' is not available: out of patience"):
        chosen(["naive"])
    assert "naive" not in [c.name for c in chosen()]


def test_contenders_call_the_public_api_with_everything() -> None:
    problem = dataclasses.replace(SMALL, stride=(2, 2), residual=True, activation=("relu", 0.0), accuracy="strict")
    arrays = same_arrays(problem)
    entry = BackendContender("naive").enter(problem, arrays)
    assert np.isnan(entry.result()).all(), "what is not overwritten must show"
    entry.call()
    assert (entry.algorithm, entry.isa) == ("direct", None)
    expected = ops.conv2d(arrays.x, arrays.w, arrays.b, 2, 1, activation="relu", residual=arrays.residual, backend="im2col")
    np.testing.assert_allclose(entry.result(), expected, atol=1e-5)
