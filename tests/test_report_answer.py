"""The answer of a report: the sentence for records whose answer is known, and the pictures that show it."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import fake_records
import numpy as np
import pytest

from fastconv.bench import report
from fastconv.bench.palette import DARK, LIGHT, looks
from fastconv.bench.report import (
    answer,
    contents,
    contests,
    figures,
    hardware,
    heat,
    page,
    plots,
    raster,
    records,
    scene,
    strips,
)
from fastconv.bench.report.records import Record
from fastconv.problem import ConvProblem
from fastconv.timing import paired

LAYERS = fake_records.layers()
EVIL = '<img src=x onerror="alert(1)">&\'$x^2$\x1b\u202e'
Speed = Callable[[int, str], float | None]  # seconds by the layer's number and the contender; None: takes no part


HOME = fake_records.Machine()


def made(tmp_path: Path, speed: Speed, layers: list[ConvProblem] = LAYERS[:6], machine: fake_records.Machine = HOME,
         noise: float = 0.01, change: Callable[[dict], None] = lambda data: None) -> Record:
    """A record whose times are known but for a little noise, other in each round."""
    data = fake_records.record(machine, 0, layers)
    names = [layer.text for layer in layers]
    generator = np.random.default_rng(1)
    kept = []
    for entry in data["benchmarks"]:
        seconds = speed(names.index(entry["extra_info"]["problem"]), entry["extra_info"]["contender"])
        if seconds is not None:
            entry["extra_info"].update(estimate=False, noisy=False)
            entry["extra_info"]["placement"] = [i // 3 for i in range(12)]
            entry["stats"]["data"] = (seconds * np.exp(generator.normal(0, noise, 12))).tolist()
            kept.append(entry)
    data["benchmarks"] = kept
    change(data)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(data))
    return records.read(path)


def of(**seconds: float) -> Speed:
    """The same on every layer; `_prepared` stands for `/prepared`."""
    return lambda _, name: seconds.get(name.replace("/", "_"))


# the sentence

def test_who_is_ahead_everywhere_is_said_to_be(tmp_path):
    record = made(tmp_path, of(cython_prepared=1e-3, cython=1.5e-3, torch=4e-3, ncnn=2e-3))
    said = answer.of_record(record)
    assert re.fullmatch(r"On Fake EPYC 7000, 2 threads, fastconv is (1\.9\d|2\.0\d) times as fast as the best of 2 other "
                        r"libraries: ahead on all 6 layers\.", said.headline)
    assert re.search(r"Geometric mean over 6 layers.* 95 % interval (1\.9\d|2\.0\d) to 2\.0\d \(bootstrap over the layers\); "
                     "weights packed beforehand, as ncnn do", said.lines[0])
    assert re.search(r"packed in every call.*: 1\.3\d times \(95 % interval 1\.3\d to 1\.3\d\), ahead on all 6", said.lines[1])
    assert "torch 2.13.0, ncnn 1.0.9; 2026-11-20" in said.basis


def test_the_score_counts_who_is_ahead_tied_and_behind(tmp_path):
    ratio = [3.0, 3.0, 3.0, 1.0, 0.8, 0.8]
    record = made(tmp_path, lambda layer, name: {"cython": 1e-3, "torch": ratio[layer] * 1e-3, "ncnn": 9e-3}.get(name),
                  noise=0.02)
    found, = contests.main_contests(record)
    assert [duel.verdict for duel in found.duels] == ["ahead"] * 3 + ["tied"] + ["behind"] * 2
    assert {duel.rival.contender for duel in found.duels} == {"torch"}
    assert found.mean.middle == pytest.approx(statistics.geometric_mean(d.speedup.middle for d in found.duels))
    assert answer.of_record(record).headline.endswith("ahead on 3 of 6 layers, tied on 1, behind on 2.")


def test_who_is_tied_is_not_called_faster(tmp_path):
    record = made(tmp_path, of(cython=1e-3, torch=1e-3), noise=0.1)
    assert "fastconv and torch are level on average" in answer.of_record(record).headline
    one = made(tmp_path, of(cython=1e-3, torch=1.01e-3, ncnn=1e-2), LAYERS[:1], noise=0.1)
    assert re.search(r"fastconv and torch, the best of 2 other libraries, are tied \(\S+ times as fast\), on rn50_conv1",
                     answer.of_record(one).headline)
    table = hardware.layers(one)
    assert table.rows[0].cells[1].text in ("tied: cython, torch", "tied: torch, cython")
    assert [m.contender for m in contests.leaders(one, LAYERS[0])].count("ncnn") == 0


def test_of_equal_rivals_the_luckiest_does_not_make_us_slower(tmp_path):
    """The best of five equals is faster than any one of them on average: the mean alone would say that we lose."""
    names = ("cython", "torch", "onnxruntime", "openvino", "ncnn", "opencv")
    record = made(tmp_path, lambda _, name: 1e-3 if name in names else None, LAYERS, noise=0.15)
    found, = contests.main_contests(record)
    assert found.mean.high < 1 and found.verdict == "tied" and "level on average" in answer.of_record(record).headline


def test_who_loses_is_said_to_lose(tmp_path):
    said = answer.of_record(made(tmp_path, of(cython=3e-3, torch=1e-3))).headline
    assert re.search(r"fastconv is slower than torch, 0\.33\d times as fast: behind on all 6 layers", said)


def test_layers_that_one_side_did_not_measure_are_named(tmp_path):
    record = made(tmp_path, lambda layer, name: {"cython": 1e-3, "torch": None if layer < 4 else 2e-3}.get(name))
    said = answer.of_record(record)
    assert "ahead on all 2 layers" in said.headline
    names = ", ".join(layer.name for layer in LAYERS[:3])
    assert said.lines[-1] == f"Left out, as not both sides took turns: {names} and 1 more."
    row = hardware.means(record).rows[0]
    assert row.cells[2].text == "2" and row.cells[3].text == "2/0/0" and LAYERS[0].name in row.cells[-1].text


@pytest.mark.parametrize(("speed", "said"), [
    (of(torch=1e-3, ncnn=2e-3), "torch is 2.0 times as fast as ncnn: ahead on all"),
    (of(cython=1e-3, cython_prepared=1e-3, numba=2e-3, im2col=4e-3), "cython is 2.0 times as fast as the best of 2 other back"),
    (of(cython=2e-3, cython_prepared=1e-3), "cython/prepared is 2.0 times as fast as cython: ahead on all"),
    (of(cython=1e-3), "cython reaches"),
    (of(), "nothing was measured"),
])
def test_records_without_two_sides_have_an_answer_too(tmp_path, speed, said):
    headline = answer.of_record(made(tmp_path, speed, noise=1e-4)).headline
    assert said in re.sub(r"(\d\.\d)\d", r"\1", headline).replace("1.9 times", "2.0 times")


def test_single_calls_are_no_basis_for_an_average(tmp_path):
    def once(data):
        for entry in data["benchmarks"]:
            if entry["extra_info"]["contender"] == "torch":
                entry["stats"]["data"], entry["extra_info"]["placement"] = [1e-3], None

    record = made(tmp_path, of(cython=1.5e-3, torch=1e-3), change=once)
    assert contests.main_contests(record) == []
    assert len(contests.leaders(record, LAYERS[0])) == 2, "1.5 times is not clear from single calls"


def test_a_gpu_s_figures_are_not_the_processor_s_answer(tmp_path):
    def gpu(data):
        for entry in data["benchmarks"]:
            info = entry["extra_info"]
            info["with_copies"] = info["contender"] == "numba"
            info["library"] = "torch 2.13.0, cudnn 91002" if info["contender"] == "ncnn" else info["library"]

    record = made(tmp_path, of(cython=2e-3, numba=1e-3, torch=4e-3, ncnn=5e-6), change=gpu)
    assert re.search(r"fastconv is (1\.9\d|2\.0\d) times as fast as torch: ahead", answer.of_record(record).headline)
    assert figures.hopeless(record) == [m for m in record.measurements if m.contender == "numba"]  # beside cuDNN


def test_several_machines_make_one_sentence(tmp_path):
    fast = made(tmp_path, of(cython=1e-3, torch=2e-3))
    slow = made(tmp_path, of(cython=3e-3, torch=2e-3), machine=fake_records.Machine("Other", "ffff", 8))
    said = answer.answer([fast, slow])
    assert re.fullmatch(r"On 2 machines, fastconv against torch is faster on 1, slower on 1: 0\.6\d\d to \S+ times as fast\.",
                        said.headline)
    assert any(line.startswith("Other, 8 threads: 0.6") for line in said.lines)
    third = made(tmp_path, of(cython=1e-3, torch=3e-3), machine=fake_records.Machine("Third", "eeee", 4))
    assert answer.answer([fast, third]).headline.startswith("On all 2 machines, fastconv is faster than torch: ")
    drawn = figures.verdict_picture([fast, slow], said).draw(1000, False)
    labels = [shape.text for shape in drawn.shapes if isinstance(shape, scene.Text)]
    assert {"Other, 8 threads", "Fake EPYC 7000, 2 threads"} <= set(labels)


@pytest.mark.parametrize(("line", "kind"), [
    ("mb1_ic8ih9iw9_oc4oh9ow9_kh1kw1sh1sw1ph0pw0", "1×1"), ("mb1_ic8ih9iw9_oc4oh9ow9_kh3kw3sh1sw1ph1pw1", "3×3"),
    ("mb1_ic8ih9iw9_oc4oh9ow9_kh5kw5sh1sw1ph2pw2", "5×5 and larger"),
    ("g8mb1_ic8ih9iw9_oc8oh9ow9_kh3kw3sh1sw1ph1pw1", "depthwise"), ("g2mb1_ic8ih9iw9_oc8oh9ow9_kh3kw3sh1sw1ph1pw1", "grouped"),
    ("mb1_ic1ih9iw9_oc1oh9ow9_kh3kw3sh1sw1ph1pw1", "images, one channel"), ("mb1_ic8iw9_oc4ow9_kw3sw1pw1", "signals, 1-D"),
])
def test_layers_of_a_kind_stand_together(line, kind):
    assert contests.kind(ConvProblem.from_text(line)) == kind


# the pictures

def texts(drawn: scene.Scene) -> list[str]:
    return [shape.text for shape in drawn.shapes if isinstance(shape, scene.Text)]


def bars(drawn: scene.Scene) -> list[scene.Path]:
    """Error bars: horizontal strokes with caps."""
    return [shape for shape in drawn.shapes if isinstance(shape, scene.Path) and len(shape.points) == 6]


def test_the_chart_has_an_error_bar_for_each_layer_and_says_what_it_leaves_out(tmp_path):
    record = made(tmp_path, of(cython=1e-3, torch=2e-3, numba=3e-3, naive=0.2))
    drawn = figures.layers(record, "x").draw(figures.CARD, True)
    assert len(bars(drawn)) == 7  # six layers and the key
    assert texts(drawn)[0].startswith("On Fake EPYC 7000") and len([t for t in texts(drawn) if t == LAYERS[0].name]) == 1
    words = " ".join(texts(drawn))
    assert "Not drawn, as more than 100 times slower than the fastest of the layer: naive (6 layers)" in words
    assert "95 % interval" in words and "taking turns" in words and "naive" not in {s.who.contender for s in drawn.shapes}
    assert "numba" in {shape.who.contender for shape in drawn.shapes}


def test_each_library_has_a_row_the_closest_first(tmp_path):
    record = made(tmp_path, of(cython=1e-3, torch=4e-3, ncnn=2e-3, opencv=0.3))
    drawing = figures.libraries(record, "x")
    drawn = drawing.draw(figures.WIDTHS["wide"], False)
    assert [text for text in texts(drawn) if text in ("torch", "ncnn", "opencv")] == ["ncnn", "torch"]
    assert any("more than 20 times as fast: opencv" in text for text in texts(drawn))
    assert figures.libraries(made(tmp_path, of(cython=1e-3, torch=4e-3)), "x") is None


def test_no_error_bar_ends_at_the_axis_and_ticks_reach_both_ends():
    marks = [strips.Mark(1.1, 1.05, 1.2, strips.MAIN, "ahead"), strips.Mark(2.0, 1.1, 2.9, strips.MAIN, "ahead")]
    rows = [strips.Strip(str(i), (mark,)) for i, mark in enumerate(marks)]
    drawn = strips.picture(rows, strips.Axis("x"), strips.Words("t"), 1000, False)
    ends = [bar.points[-1][0] for bar in bars(drawn)]
    ticks = [shape for shape in drawn.shapes if isinstance(shape, scene.Text) and shape.text.endswith("×")]
    assert max(ends) < 995 and max(tick.x for tick in ticks) > 900 and min(tick.x for tick in ticks) < 100


def test_one_layer_has_a_row_for_everyone(tmp_path):
    record = made(tmp_path, of(cython=1e-3, torch=2e-3, numba=3e-3), LAYERS[:1])
    drawn = figures.layers(record, "x").draw(figures.WIDTHS["wide"], False)
    assert [t for t in texts(drawn) if t in ("cython", "torch", "numba")] == ["cython", "torch", "numba"]


def test_the_roofline_explains_what_is_above_the_roof(tmp_path):
    record = made(tmp_path, lambda layer, name: LAYERS[layer].flops / (500e9 if name == "cython" else 50e9)
                  if name in ("cython", "torch") else None)
    drawing = plots.roofline(record, "x")
    words = texts(drawing.draw(1000, False))
    above = [plots.above_roof(record, m) for m in record.measurements if m.contender == "cython"]
    assert above.count("winograd") > 1
    assert any(f"{above.count('winograd')} winograd" in text for text in words) and "none above" in words
    assert any("fewer products than are counted" in text for text in words) and "Above the roof" in drawing.caption


def test_labels_stay_inside_the_picture_and_apart(tmp_path):
    long = [ConvProblem.from_text(re.sub('n".*"', f'n"größe_{i}_{"x" * 90}_{i}"', layer.text))
            for i, layer in enumerate(LAYERS[:14])]
    record = made(tmp_path, of(cython=1e-3, torch=2e-3, ncnn=3e-3, im2col=5e-3), long)
    said = answer.of_record(record)
    for drawing in (figures.verdict_picture([record], said), figures.libraries(record, "p"), figures.layers(record, "l"),
                    plots.roofline(record, "r"), heat.heat_map(record, "h")):
        for width, alone in ((1280, True), (1040, False), (700, False), (358, False)):
            drawn = drawing.draw(width, alone)
            for shape in drawn.shapes:
                if isinstance(shape, scene.Text):
                    wide = scene.text_width(shape.text, shape.size, shape.bold)
                    left = shape.x - {"start": 0, "middle": wide / 2, "end": wide}[shape.anchor]
                    assert -2 <= left and left + wide <= drawn.width + 2, (drawing.key, width, shape.text)
                    assert 0 < shape.y <= drawn.height, (drawing.key, width, shape.text)
    names = [t for t in texts(figures.layers(record, "l").draw(1040, False)) if t.startswith("grö")]
    assert len(set(names)) == 14, "what is left out is the middle, so that names differ"


def test_svg_is_xml_whatever_names_say(tmp_path):
    def evil(data):
        data["machine_info"]["fastconv"]["cpu"] = EVIL
        for entry in data["benchmarks"]:
            if entry["extra_info"]["contender"] == "torch":
                entry["extra_info"].update(contender=EVIL, library=EVIL)

    record = made(tmp_path, of(cython=1e-3, torch=2e-3), change=evil)
    for drawing in (figures.layers(record, "l"), plots.roofline(record, "r"), heat.heat_map(record, "h")):
        root = ElementTree.fromstring(raster.content(drawing.draw(900, True), ".svg"))
        tags = [element.tag.rpartition("}")[2] for element in root.iter()]
        assert tags[:3] == ["svg", "title", "desc"] and "img" not in tags and root[0].text and root[1].text
    pytest.importorskip("matplotlib")
    assert raster.content(figures.layers(record, "l").draw(900, True), ".png").startswith(b"\x89PNG")


def test_a_page_needs_no_matplotlib(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made(tmp_path, of(cython=1e-3, torch=2e-3))
    assert report.main([tmp_path / "record.json"], tmp_path / "page.html") == 0
    assert "no pictures beside it: matplotlib is not installed" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "page.html").read_text("utf-8").count("<svg") > 3 and not list(tmp_path.glob("*.png"))


# the page

@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    record = made(tmp_path_factory.mktemp("answer"), lambda layer, name: {
        "cython/prepared": 1e-3, "cython": 1.2e-3, "torch": 2e-3, "im2col": 5e-3}.get(name), LAYERS)
    said, first = contents.first([record], [])
    return page.render(said, first, contents.sections([record], []), record.contenders)


def test_the_answer_and_its_picture_stand_above_all_tables(text):
    headline = re.search("<h1>(.*?)</h1>", text, re.S)[1]
    assert re.search(r"fastconv is \S+ times as fast as torch: ahead on all 36 layers\.", headline)
    assert f"<title>{headline}</title>" in text and f'property="og:title" content="{headline}"' in text
    assert text.index("<h1>") < text.index("<svg") < text.index("<nav") < text.index("<table")
    for section in re.findall("<section.*?</section>", text, re.S):
        assert section.rindex("<svg") < section.index("<table"), "pictures before tables"


def test_every_picture_says_what_it_is_to_those_who_do_not_see_it(text):
    for svg in re.findall("<svg.*?</svg>", text, re.S):
        names = re.match('<svg [^>]*role="img" aria-labelledby="([^" ]+) ([^" ]+)"', svg)
        assert names and re.search(f'<title id="{names[1]}">[^<]{{10,}}</title><desc id="{names[2]}">[^<]', svg), svg[:300]
    widths = [len(re.findall(f'<div class="{name}"><svg', text)) for name in figures.WIDTHS]
    assert len(set(widths)) == 1 and widths[0] >= 3, "one for each kind of screen"


def _contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_have_contrast(theme):
    assert theme.keys() == LIGHT.keys()
    for name in ("ink", "soft", "link", "good", "bad", "ahead", "behind", "tied"):  # text
        for ground in ("ground", "raised") if name in ("ink", "soft", "link") else ("ground",):
            assert _contrast(theme[name], theme[ground]) >= 4.5, name
    assert _contrast(theme["pale"], theme["ground"]) >= 3
    for name in ("cython", "numba", "cuda", "im2col", "naive", "torch", "onnxruntime", "openvino", "ncnn", "opencv", "another"):
        assert _contrast(looks([name])[name].colour, theme["ground"]) >= 3, name


def test_blue_and_orange_differ_for_the_colour_blind():
    """Seen without red, or without green, the two still differ in blue against yellow."""
    for theme in (LIGHT, DARK):
        ahead, behind = ([int(theme[name][i:i + 2], 16) for i in (1, 3, 5)] for name in ("ahead", "behind"))
        assert (ahead[2] - max(ahead[:2])) - (behind[2] - max(behind[:2])) > 100


# words and places

def test_texts_are_fitted_wrapped_and_spread():
    assert scene.fit("short", 12, 100) == "short"
    shorter = scene.fit("a_very_long_name_of_a_layer@56", 12, 100)
    assert "…" in shorter and shorter.endswith("6") and shorter.startswith("a_") and scene.text_width(shorter, 12) <= 100
    lines = scene.balanced("one two three four five six seven", 12, 120)
    assert " ".join(lines) == "one two three four five six seven" and all(scene.text_width(line, 12) <= 120 for line in lines)
    assert scene.text_width("漢字", 10) == 20
    places = list(scene.spread([5.0, 5.0, 6.0, 90.0], 10, 0, 100))
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(places)) and min(places) >= 0 and max(places) <= 100


def test_intervals_of_means_cover_other_choices_of_layers():
    found = paired.geometric_mean([1.0, 2.0, 4.0] * 8)
    assert found.middle == pytest.approx(2.0) and 1.5 < found.low < 1.75
    assert math.isclose(found.low * found.high, 4, rel_tol=0.1)
    assert paired.geometric_mean([]) is None
