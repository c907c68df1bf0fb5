"""How rivals are measured in turn, and what a record holds."""

import json
from importlib.metadata import PackageNotFoundError

import numpy
import pytest

from benchmarks import record


def test_rivals_take_turns_and_every_other_round_starts_with_the_last():
    asked = []

    def rival(name, figure):
        def call():
            asked.append(name)
            return figure

        return call

    rounds = record.interleaved({"ours": rival("ours", 2.0), "theirs": rival("theirs", 1.0)}, rounds=2)
    assert asked == ["ours", "theirs", "theirs", "ours"]
    assert rounds == [{"ours": 2.0, "theirs": 1.0}] * 2


def test_a_call_in_a_process_of_its_own_gives_value_seconds_and_memory():
    timed = record.in_process(sum, [1, 2, 3])
    assert timed.value == 6
    assert timed.seconds > 0
    assert timed.peak_rss_gib > 0


def test_a_failure_in_the_other_process_is_a_failure_here():
    with pytest.raises(ZeroDivisionError):
        record.in_process(divmod, 1, 0)


def test_a_record_holds_figures_rounds_versions_and_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.write("try", {"rate": 1234.56789, "gpu": None}, [{"ours": 1.0}], ("numpy",), ["a note"])
    content = json.loads((tmp_path / "try.json").read_text(encoding="utf-8"))
    assert content["figures"] == {"rate": 1234.57, "gpu": None}
    assert content["rounds"] == [{"ours": 1.0}]
    assert content["notes"] == ["a note"]
    assert set(content["versions"]) == {"python", "numpy"}
    assert content["machine"].keys() >= {"processor", "architecture", "cores", "memory_gib"}


def test_a_library_without_metadata_tells_its_version_itself(monkeypatch, tmp_path):
    def missing(library):
        raise PackageNotFoundError(library)

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "version", missing)
    record.write("try", {}, [], ("numpy",))
    assert json.loads((tmp_path / "try.json").read_text(encoding="utf-8"))["versions"]["numpy"] == numpy.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["try.json"]


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512_bf16 avx512f
bugs\t\t:

processor\t: 1
model name\t: another
"""


def test_a_processor_is_told_by_family_model_and_its_wide_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "_CPUINFO", tmp_path / "cpuinfo")
    record._CPUINFO.write_text(CPUINFO)
    told = record.machine()
    assert (told["processor"], told["cpu_family"], told["cpu_model"]) == ("AMD EPYC", "25", "17")
    assert told["instructions"] == ["avx2", "avx512f", "avx512_bf16"]


def test_without_flags_nothing_is_said_of_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "_CPUINFO", tmp_path / "none")
    assert record.machine().keys() == {"processor", "architecture", "cores", "memory_gib"}


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Writes a record on a CPU with these instructions, and says what the files hold then."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)

    def write(instructions, figure):
        told = {"architecture": "x86_64"} | ({"instructions": instructions} if instructions is not None else {})
        monkeypatch.setattr(record, "machine", lambda: told)
        record.write("step", {"rate": figure}, [], ())
        return {path.stem: json.loads(path.read_text())["figures"]["rate"] for path in tmp_path.iterdir()}

    return write


def test_a_record_of_another_kind_of_cpu_is_not_overwritten(written):
    written(["avx2", "avx512f"], 1.0)
    assert written(["avx2"], 2.0) == {"step": 1.0, "step-avx2": 2.0}
    assert written(["avx2"], 3.0) == {"step": 1.0, "step-avx2": 3.0}
    assert written(["avx2", "avx512f"], 4.0) == {"step": 4.0, "step-avx2": 3.0}
    assert written(None, 5.0) == {"step": 4.0, "step-avx2": 3.0, "step-x86_64": 5.0}


def test_nor_is_one_that_does_not_say_of_which_cpu_it_is(written, tmp_path):
    (tmp_path / "step.json").write_text('{"machine": {"processor": "AMD EPYC"}, "figures": {"rate": 1.0}}')
    assert written(["avx2"], 2.0) == {"step": 1.0, "step-avx2": 2.0}


def test_a_record_is_named_in_itself_as_its_file(written, tmp_path):
    written(["avx2", "avx512f"], 1.0)
    written(["avx2"], 2.0)
    assert json.loads((tmp_path / "step-avx2.json").read_text())["name"] == "step-avx2"


def test_where_nothing_was_measured_nothing_is_kept(written):
    written(["avx2", "amx_bf16"], None)
    assert written(["avx2"], 2.0) == {"step": 2.0}


def test_the_name_of_one_kind_may_hold_a_record_of_another(written, tmp_path):
    for name in ("step", "step-avx2"):
        (tmp_path / f"{name}.json").write_text('{"machine": {}, "figures": {"rate": 1.0}}')
    assert written(["avx2"], 2.0) == {"step": 1.0, "step-avx2": 1.0, "step-avx2-avx2": 2.0}
