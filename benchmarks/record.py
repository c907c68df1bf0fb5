"""What a benchmark writes down: machine, versions, raw rounds and figures, as ``benchmarks/results/<name>.json``."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
RESULTS = _ROOT / "benchmarks" / "results"
_GIB = 2**30
_CPUINFO = Path("/proc/cpuinfo")
_WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # as Linux names them, the widest last


@dataclass(frozen=True)
class Timed:
    """What a call gave, and what it took in a process of its own."""

    value: Any
    seconds: float
    peak_rss_gib: float


def in_process(function: Callable[..., Any], *arguments: Any, imports: Sequence[str] = ()) -> Timed:
    """Call in a new process, so that peak memory is the call's own. ``imports`` happen before the clock starts, and count as memory.

    The peak of a child begins at that of its parent: what holds much memory belongs into a process of its own, too.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for name in imports:
            pool.submit(_import, name).result()
        return pool.submit(_timed, function, arguments).result()


def call(command: Sequence[str], threads: int) -> None:
    """Run a program of the repository on so many threads and no GPU; the end of this one where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit status {done.returncode} of {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _import(name: str) -> None:
    import_module(name)


def _timed(function: Callable[..., Any], arguments: Sequence[Any]) -> Timed:
    began = time.perf_counter()
    value = function(*arguments)
    seconds = time.perf_counter() - began
    return Timed(value, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB)


def interleaved(rivals: Mapping[str, Callable[[], float]], rounds: int) -> list[dict[str, float]]:
    """Every rival once a round, in turn: what slows the machine for a while slows all of them alike.

    Args:
        rivals: by name; each call returns its figure.
        rounds: at least 1.
    """
    done: list[dict[str, float]] = []
    for number in range(rounds):
        names = list(rivals) if number % 2 == 0 else list(reversed(rivals))
        figures = {name: rivals[name]() for name in names}
        done.append({name: figures[name] for name in rivals})
        print(f"round {number + 1} of {rounds}: " + ", ".join(f"{name} {value:.4g}" for name, value in done[-1].items()), flush=True)
    return done


def write(
    name: str,
    figures: Mapping[str, float | None],
    rounds: Any,
    libraries: Sequence[str],
    notes: Sequence[str] = (),
    *,
    is_told: bool = True,
) -> Path:
    """Write the record.

    Args:
        name: of the file; ours is named by the kind of CPU too where a record of another kind has the name.
        figures: flat, by the keys that ``docs/benchmarks.md`` shows; None: not measured.
        rounds: the raw figures, as JSON.
        libraries: whose versions are told.
        notes: what a reader must know.
        is_told: print the figures; not where more are to come.
    """
    here = machine()
    asked, name = name, _free_name(name, _kind_of_cpu(here))
    content = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": here,
        "versions": {"python": platform.python_version(), **{library: _version(library) for library in libraries}},
        "figures": {key: None if value is None else float(f"{value:.6g}") for key, value in figures.items()},
        "rounds": rounds,
        "notes": list(notes),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    aside = path.with_suffix(".tmp")  # a run that is stopped leaves the record before whole
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)
    if is_told:
        for key, value in content["figures"].items():
            print(f"{key}: {'not measured' if value is None else value}")
        if name != asked:
            print(f"{asked}.json is of another kind of CPU, or does not say of which, and stays: delete it first to replace it")
        print(f"written to {path}")
    return path


def _free_name(name: str, kind: str | None) -> str:
    """The name where no record of another kind of CPU has it; else the name with our kind behind it.

    A record that does not say its kind may be of another. One that measured nothing may be overwritten.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return name
    there = json.loads(path.read_text(encoding="utf-8"))
    is_measured = any(value is not None for value in there["figures"].values())
    return _free_name(f"{name}-{kind}", kind) if is_measured and _kind_of_cpu(there["machine"]) != kind else name


def _kind_of_cpu(machine: Mapping[str, Any]) -> str | None:
    """The widest instructions, by which a CPU's figures can be compared; None: the record is of 2026-11-28 or before, and does not say."""
    return (machine.get("instructions") or [machine.get("architecture")])[-1]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # built from source, or put on the path
        return str(import_module(library).__version__)


def machine() -> dict[str, Any]:
    """Processor, cores in use and memory; on Linux on x86 the family and the model too, and which wide instructions it has."""
    cpu = _cpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    told = {
        "processor": cpu.get("model name", platform.processor()),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
    }
    if "flags" in cpu:  # one name ("AMD EPYC") is that of processors without AVX-512 and of those with it
        flags = cpu["flags"].split()
        told |= {"cpu_family": cpu["cpu family"], "cpu_model": cpu["model"], "instructions": [each for each in _WIDE if each in flags]}
    return told


def _cpu() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    fields: dict[str, str] = {}
    for line in _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.exists() else []:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields
