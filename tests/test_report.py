"""What is read from records, and the reports made of them: the numbers, the tables, the page, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import fake_records
import pytest

from fastconv.bench import report
from fastconv.bench.palette import looks
from fastconv.bench.report import across, contents, figures, hardware, records, tables
from fastconv.problem import ConvProblem

LAYERS = fake_records.layers()
SERVER = fake_records.Machine("Fake Xeon(R) Platinum 9999C CPU @ 2.40GHz", "ffff00001111", 8, 900e9, 60e9)


def write(folder: Path, name: str, *arguments, **more) -> Path:
    return fake_records.write(folder / name, *arguments, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two machines, one of them with one and two threads and twice with two."""
    path = tmp_path_factory.mktemp("records")
    write(path, "old.json", fake_records.Machine(), 1, LAYERS)
    write(path, "new.json", fake_records.Machine(), 2, LAYERS, {("cython", "winograd"): 1.2}, when="2026-11-22T10:00:00+00:00")
    write(path, "one-thread.json", fake_records.Machine(threads=1, peak=105e9), 3, LAYERS)
    write(path, "server.json", SERVER, 4, LAYERS)
    return path


@pytest.fixture(scope="module")
def loaded(folder) -> list[records.Record]:
    return records.read_all(sorted(folder.glob("*.json")))


# reading

def changed(tmp_path: Path, change) -> Path:
    data = fake_records.record(fake_records.Machine(), 0, LAYERS[:2])
    change(data)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data))
    return path


def _set(*keys, to):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to
    return change


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data.pop("format"), r"x\.json is a record of format 1; this fastconv reads 2: run `fastconv bench` again"),
    (_set("format", to=3), "is a record of format 3; this fastconv reads 2"),
    (lambda data: data.pop("benchmarks"), "is JSON, but not a record of `fastconv bench`"),
    (_set("version", to="5.1"), "a record of another program"),
    (_set("threads", to="2"), r"x\.json: threads must be an integer, got '2'"),
    (_set("threads", to=True), "threads must be an integer, got True"),
    (_set("datetime", to="yesterday"), "datetime: Invalid isoformat"),
    (lambda data: data["machine_info"]["fastconv"].pop("fingerprint"), "machine_info.fastconv: fingerprint must be a text"),
    (_set("benchmarks", 3, "stats", "data", to=[1.0, -1.0]), "benchmark 4: data must be positive, got -1.0"),
    (_set("benchmarks", 3, "stats", "data", to=[float("nan")]), "benchmark 4: data must be positive, got nan"),
    (_set("benchmarks", 3, "stats", "data", to=[]), "benchmark 4: data is empty"),
    (_set("benchmarks", 3, "extra_info", "placement", to=[0]), "placement has 1 entries for 12 rounds"),
    (_set("benchmarks", 3, "extra_info", "problem", to="mb1_what"), "benchmark 4: malformed problem"),
    (_set("benchmarks", 3, to="?"), r"benchmark 4 must be an object, got '\?'"),
    (_set("peaks", 0, "flops", to=0), "peak 1: flops must be positive, got 0"),
    (_set("left_out", to=[{}]), "left_out 1: problem must be a text, it is missing"),
])
def test_what_is_no_record_of_this_format_is_refused_with_one_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        records.read(changed(tmp_path, change))
    assert "\n" not in str(error.value) and "x.json" in str(error.value)


def test_files_that_are_no_json_are_refused_with_one_line(tmp_path, folder):
    path = tmp_path / "cut.json"
    path.write_text((folder / "old.json").read_text()[:5000])
    with pytest.raises(ValueError, match=r"cut\.json is not a complete JSON record \(line \d+, column \d+\)"):
        records.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not text"):
        records.read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is JSON, but not a record"):
        records.read(path)


def test_a_record_is_read_as_it_was_written(tmp_path):
    data = fake_records.record(SERVER, 5, LAYERS)
    (tmp_path / "a.json").write_text(json.dumps(data))
    record = records.read(tmp_path / "a.json")
    assert len(record.measurements) == len(data["benchmarks"]) and len(record.left_out) == len(data["left_out"]) > 0
    for m, entry in zip(record.measurements, data["benchmarks"]):
        assert m.data == tuple(entry["stats"]["data"]) and m.seconds == statistics.median(m.data)
        assert m.contender == entry["extra_info"]["contender"] and m.problem.text == entry["extra_info"]["problem"]
        assert m.gflops == pytest.approx(m.problem.flops / m.seconds / 1e9)
    assert record.peaks[LAYERS[0]].flops == data["peaks"][0]["flops"]


def test_labels_name_cpu_and_threads_and_are_unique(loaded):
    assert [record.label for record in loaded] == [
        "Fake EPYC 7000, 2 threads #1", "Fake EPYC 7000, 1 thread", "Fake Xeon Platinum 9999C, 8 threads",
        "Fake EPYC 7000, 2 threads #2"]


def test_forced_isas_are_part_of_the_label_and_of_the_machine(tmp_path):
    for isa in ("avx2", None):
        data = fake_records.record(fake_records.Machine(), 0, LAYERS[:1])
        data["machine_info"]["fastconv"]["isa_forced"] = isa
        (tmp_path / f"{isa}.json").write_text(json.dumps(data))
    found = records.read_all([tmp_path / "avx2.json", tmp_path / "None.json"])
    assert [record.label for record in found] == ["Fake EPYC 7000, 2 threads, avx2", "Fake EPYC 7000, 2 threads, best ISA"]
    assert len({record.machine for record in found}) == 2


# the numbers

def cell(table: tables.Table, first: str, column: str) -> tables.Cell:
    (row,) = [row for row in table.rows if row.cells[0].text == first]
    return row.cells[[c.name for c in table.columns].index(column)]


def test_the_fastest_of_a_layer_is_the_fastest_that_was_measured(tmp_path):
    def change(data):
        for entry in data["benchmarks"]:
            entry["extra_info"].update(estimate=entry["extra_info"]["contender"] == "torch", noisy=False)
            seconds = {"torch": 1e-6, "ncnn": 1e-3, "cython": 2e-3, "cython/prepared": 1.5e-3}
            entry["stats"]["data"] = [seconds.get(entry["extra_info"]["contender"], 9e-3)] * 12

    record = records.read(changed(tmp_path, change))
    name = LAYERS[0].name
    table = hardware.layers(record)
    assert cell(table, name, "fastest").text == "ncnn" and cell(table, name, "ms").value == pytest.approx(1.0)
    assert cell(table, name, "call vs peer").value == pytest.approx(0.5) and cell(table, name, "fastconv").text == "cython"
    assert cell(table, name, "prepared vs peer").value == pytest.approx(1 / 1.5)
    means = hardware.means(record)
    assert cell(means, "the best peer of each layer", "call").text == "0.500x"
    assert cell(means, "openvino 2026.1", "call").value == pytest.approx(4.5)
    assert cell(means, "torch 2.13.0", "call") == tables.NOTHING  # only estimated


def test_speedups_pair_the_rounds(loaded):
    """The machine's drift is in both contenders' rounds, so the ratio's interval is narrower than that of the times."""
    record = loaded[0]
    a, b = record.get(LAYERS[0], "cython"), record.get(LAYERS[0], "torch")
    found = hardware.speedup(a, b)
    assert found.middle == statistics.median(y / x for x, y in zip(a.data, b.data))
    assert found.low < found.middle < found.high


def test_costs_are_medians_over_layers_and_the_worst(tmp_path):
    def change(data):
        data["benchmarks"] = [e for e in data["benchmarks"] if e["extra_info"]["contender"] == "torch"]
        for entry, first, size in zip(data["benchmarks"], (0.1, 0.3), (None, 2**20)):
            entry["extra_info"].update(first_seconds=first, peak_bytes=size)

    table = hardware.costs(records.read(changed(tmp_path, change)))
    values = [cell(table, "torch", name).value for name in ("import ms", "first call ms", "first call, worst", "memory MiB")]
    assert values == pytest.approx([1900, 200, 300, 1])


def test_across_machines_the_latest_record_of_each_counts(loaded):
    machines = across.newest(loaded)
    assert [record.file for record in machines] == ["new.json", "one-thread.json", "server.json"]
    table = across.machines_table(machines)
    server = cell(table, "Fake Xeon Platinum 9999C, 8 threads", "than Fake EPYC 7000, 2 threads #2").value
    back = cell(table, "Fake EPYC 7000, 2 threads #2", "than Fake Xeon Platinum 9999C, 8 threads").value
    assert server == pytest.approx(1 / back) and 2 < server < 8
    assert sum(c.value for row in across.wins(machines).rows for c in row.cells[1:]) == 3 * len(LAYERS)


def test_networks_are_summed_with_their_counts_by_those_who_measured_all(tmp_path):
    network = [*fake_records.layers("resnet50"), LAYERS[13]]  # with one that naive's time is only estimated for
    record = records.read(write(tmp_path, "r.json", SERVER, 1, network, suite="resnet50"))
    (machine,) = across.newest([record])
    rows = {row.cells[2].text: row.cells[3].value for row in across.networks([machine]).rows}
    assert rows["torch"] == pytest.approx(1e3 * sum(record.get(p, "torch").seconds * p.count for p in network))
    assert rows["fastconv prepared, best of each layer"] <= rows["cython/prepared"]
    assert any(p.count > 1 for p in network) and "naive" not in rows


def test_scaling_with_threads_and_with_size_appear_where_there_is_such_data(loaded, tmp_path):
    (threads,) = across.by_threads(across.newest(loaded))
    assert threads.label == "Fake EPYC 7000" and [x for x, _ in threads.lines["cython"]] == [1, 2]
    assert threads.lines["cython"][0][1] == pytest.approx(1) and 1.2 < threads.lines["cython"][1][1] < 2.5
    assert across.by_threads(loaded[:1]) == []
    sizes = [ConvProblem.from_text(f'mb1_ic64ih{s}iw{s}_oc64oh{-(-s // 2)}ow{-(-s // 2)}_kh3kw3sh2sw2ph1pw1_n"s{s}"')
             for s in (15, 28, 56)]
    record = records.read(write(tmp_path, "s.json", SERVER, 1, [*sizes, *LAYERS[:3]]))
    (family,) = across.by_size(record)
    assert "3×3, 64 to 64 channels, stride 2" in family.label and [x for x, _ in family.lines["cython"]] == [64, 196, 784]


@pytest.mark.parametrize(("value", "shown"), [
    (0, "0"), (0.000123456, "0.000123"), (0.0999, "0.0999"), (0.99951, "1.00"), (9.994, "9.99"), (9.996, "10.0"),
    (99.94, "99.9"), (99.96, "100"), (1234.5, "1234")])
def test_numbers_have_three_digits(value, shown):
    assert tables.significant(value) == shown


def test_a_contender_looks_the_same_in_every_figure():
    every = looks(["cython", "cython/prepared", "cython:gemm", "torch"])
    assert every["torch"] == looks(["torch"])["torch"] and every["cython"].colour == every["cython/prepared"].colour
    assert every["cython/prepared"].hollow and len({(look.colour, look.hollow) for look in every.values()}) == 4


# the whole

def test_the_command_prints_the_tables_and_its_exit_code_tells_of_regressions(folder, tmp_path, capsys):
    old, new, server = folder / "old.json", folder / "new.json", folder / "server.json"
    assert report.main([old, new]) == 0
    out = capsys.readouterr().out
    for heading in ("By contender and algorithm", "Fastest per layer", "fastconv against the peers", "One-time costs"):
        assert heading in out
    assert re.search(r"cython +│ winograd +│ +13 │ 1\.\d\d \[1\.\d\d, 1\.\d\d\] │ slower", out)
    assert report.main([new, old, server], fail=True) == 1
    again = write(tmp_path, "again.json", fake_records.Machine(), 9, LAYERS, when="2026-11-25T10:00:00+00:00")
    assert report.main([old, again], fail=True) == 0


def test_failing_on_regressions_needs_two_records_of_one_machine(folder):
    with pytest.raises(ValueError, match="needs two records of one machine, got one"):
        report.main([folder / "old.json"], fail=True)
    with pytest.raises(ValueError, match="with the same threads, and these are of Fake EPYC 7000, 2 threads, Fake Xeon"):
        report.main([folder / "old.json", folder / "server.json"], fail=True)


# the page

@pytest.fixture(scope="module")
def page(folder) -> Path:
    pytest.importorskip("matplotlib")
    path = folder / "report.html"
    assert report.main([folder / "old.json", folder / "new.json"], path) == 0
    return path


class _Page(HTMLParser):
    """Collects what a check asks about; fails on tags that do not nest."""

    VOID = {"meta", "input", "br", "link", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open[-1:]}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_is_one_file_that_asks_for_nothing(page):
    text = page.read_text("utf-8")
    parsed = _Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    for _, attributes in parsed.found:
        for name in ("href", "src", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    assert str(page.parent) not in text and len(text) < 1_200_000
    identities = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = {attributes["href"][1:] for attributes in parsed.all("a") + parsed.all("use") if attributes.get("href")}
    assert targets <= set(identities)


def test_the_page_can_be_used_without_seeing_and_without_a_mouse(page):
    text = page.read_text("utf-8")
    parsed = _Page(text)
    levels = [int(tag[1]) for tag, _ in parsed.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert next(a for tag, a in parsed.found if tag == "a") == {"class": "skip", "href": "#content"}
    assert all(re.search(r"<button", head) for head in re.findall(r'<th scope="col".*?</th>', text))
    identities = {attributes["id"] for tag, attributes in parsed.found if tag in ("title", "desc") and "id" in attributes}
    assert all(svg.get("role") == "img" and set(svg["aria-labelledby"].split()) <= identities for svg in parsed.all("svg"))
    assert all(div.get("tabindex") == "0" and div.get("aria-label") for div in parsed.all("div")
               if "scroll" in (div.get("class") or ""))


def test_what_a_record_says_is_escaped(tmp_path):
    evil = '<img src=x onerror="alert(1)">&'

    def change(data):
        data["machine_info"]["fastconv"]["cpu"] = evil
        data["left_out"] = [{"problem": LAYERS[0].text, "contender": evil, "reason": evil}]
        for entry in data["benchmarks"]:
            if entry["extra_info"]["contender"] == "torch":
                entry["extra_info"].update(contender=evil, library=evil, algorithm=evil)

    path = tmp_path / "page.html"
    report.main([changed(tmp_path, change)], path)
    text = path.read_text("utf-8")
    assert "<img" not in text and "&lt;img" in text
    _Page(text)


def test_figures_have_a_hint_for_every_point_and_follow_the_page_s_colours(page, loaded):
    text = page.read_text("utf-8")
    record = loaded[3]
    slow = {id(m) for m in figures.hopeless(record)}
    drawn = [m for m in record.measurements if not m.estimate and id(m) not in slow]
    roofline, heat_map = (re.search(f'<figure id="[^"]*{name}.*?(<svg.*?</svg>)', text, re.S)[1] for name in ("roof", "heat"))
    assert len(re.findall("<circle[^>]*><title>", roofline)) == len(drawn) < len(record.measurements)
    assert heat_map.count(" over im2col</title>") == len(record.measurements)
    m = drawn[0]
    assert f"<title>{records.title(m.problem)}, {m.contender} ({m.algorithm}): " in roofline
    for svg in (roofline, heat_map):
        assert "var(--ink)" in svg and "#000" not in svg
    shown = re.search(r"<title>rn50_conv1_7x7s2, naive: (\S+) over im2col</title>", heat_map)[1]
    assert f">{shown}<title>" in heat_map and float(shown) > 0  # positions are rounded, texts are not


def test_the_figures_are_also_files(page):
    names = sorted(path.name for path in page.parent.glob("report-*.png"))
    assert "report-roofline-fake-epyc-7000-2-threads-2.png" in names and len(names) >= 2
    for name in names:
        assert (page.parent / name).read_bytes()[:4] == b"\x89PNG"


def test_a_record_with_little_in_it_makes_a_report_all_the_same(tmp_path, capsys):
    def change(data):
        data["benchmarks"], data["peaks"] = data["benchmarks"][4:5], []
        data["benchmarks"][0]["stats"]["data"] = [0.5]
        data["benchmarks"][0]["extra_info"]["placement"] = None

    assert report.main([changed(tmp_path, change)], tmp_path / "page.html") == 0
    _Page((tmp_path / "page.html").read_text("utf-8"))

    def nothing(data):
        data["benchmarks"], data["peaks"], data["interrupted"] = [], [], True

    assert report.main([changed(tmp_path, nothing)], tmp_path / "page.html") == 0
    _Page((tmp_path / "page.html").read_text("utf-8"))


def test_sections_are_the_same_for_terminal_and_page(loaded):
    titles = [section.title for section in contents.sections(loaded, [])]
    assert titles == ["Across machines", "Fake EPYC 7000, 2 threads #2", "Fake EPYC 7000, 1 thread",
                      "Fake Xeon Platinum 9999C, 8 threads"]


_PROBE = """
<script>{
const result = {}, table = [...document.querySelectorAll("table")].at(-1), body = table.tBodies[0];
const column = name => [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === name);
const values = name => [...body.rows].map(row => row.cells[column(name)].textContent);
const press = name => table.tHead.rows[0].cells[column(name)].querySelector("button").click();
const shown = selector => [...document.querySelectorAll(selector)].filter(e => !e.hidden && e.style.display !== "none").length;
press("ms"); result.up = values("ms"); press("ms"); result.down = values("ms");
result.sorted = table.tHead.rows[0].cells[column("ms")].getAttribute("aria-sort");
press("contender"); result.names = values("contender");
const find = document.getElementById("find");
find.value = "RN50_conv1 torch"; find.dispatchEvent(new Event("input"));
result.filtered = [...body.rows].filter(row => !row.hidden).map(row => [row.cells[0].textContent, row.cells[1].textContent]);
result.points = shown('figure[id*="roofline"] .wide circle[data-contender]');
result.status = document.getElementById("status").textContent;
find.value = ""; find.dispatchEvent(new Event("input"));
const box = document.querySelector('input[value="torch"]');
result.before = shown('svg [data-contender="torch"]'); box.click();
result.hidden = shown('[data-contender="torch"]'); result.others = shown('tr[data-contender="ncnn"]');
const wide = document.documentElement;
result.overflow = wide.scrollWidth > wide.clientWidth;
const out = document.createElement("pre"); out.id = "result"; out.textContent = JSON.stringify(result);
document.body.append(out);
}</script></body>"""


def test_the_page_sorts_and_filters_in_a_browser(page, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text("utf-8").replace("</body>", _PROBE), "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=500,900",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    result = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    up, down = ([float(text.replace("~", "")) for text in result[name] if text != "–"] for name in ("up", "down"))
    assert up == sorted(up) and down == sorted(down, reverse=True) and len(set(up)) > 100
    assert result["up"][-1] == result["down"][-1] == "–" and result["sorted"] == "descending"  # what has no number stands last
    assert result["names"] == sorted(result["names"])
    assert result["filtered"] == [["rn50_conv1_7x7s2", "torch"]] and result["points"] == 1 and " rows" in result["status"]
    assert result["before"] > 30 and result["hidden"] == 0 and result["others"] > 30
    assert not result["overflow"], "the page itself scrolls sideways"
