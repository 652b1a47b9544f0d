"""The process settings: which, when the user's own are kept, and one restart at most."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollouts import process

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("PATH", "HOME", "LANG")  # a child's environment without any of the settings
NO_ALLOCATOR = Path("/absent/libmimalloc.so")  # whether or not this machine has one


@pytest.fixture
def openmp(tmp_path: Path) -> Path:
    library = tmp_path / "libiomp5.so"
    library.touch()
    return library


@pytest.fixture
def allocator(tmp_path: Path) -> Path:
    library = tmp_path / "libmimalloc.so"
    library.touch()
    return library


def run_script(folder: Path, body: str, **variables: str) -> tuple[int, str, str]:
    """Run a program that notes each of its starts: (number of starts, stdout, stderr)."""
    script = folder / "program.py"
    notes = "import os, sys\nwith open('starts', 'a') as f: f.write('x')\n"
    script.write_text(f"{notes}from rollouts.process import prepare_process\n{body}")
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ |= {"PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "program.py", "--steps", "3"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return len((folder / "starts").read_text()), done.stdout, done.stderr


def test_two_cores_without_a_gpu(openmp: Path, allocator: Path):
    required = process.required_environment(
        {}, cuda=False, cpus=[0, 1], openmp=openmp, allocator=allocator
    )
    assert required == {
        "OMP_NUM_THREADS": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "0-1",
        "KMP_AFFINITY": "none",
        "LD_PRELOAD": f"{allocator}:{openmp}",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MIMALLOC_PURGE_DELAY": "-1",
        "MIMALLOC_ALLOW_THP": "0",
    }


def test_on_a_gpu_threads_are_left_alone(openmp: Path):
    required = process.required_environment({}, cuda=True, cpus=[0, 1], openmp=openmp)
    cpu_only = {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "LD_PRELOAD"}
    assert not cpu_only & set(required)
    assert required["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_what_the_user_chose_is_kept_except_the_engine_in_another_process(openmp: Path):
    chosen = {
        "OMP_NUM_THREADS": "3",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "DO_NOT_TRACK": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    }
    required = process.required_environment(chosen, cuda=False, cpus=[0, 2, 4, 6], openmp=openmp)
    assert required["OMP_NUM_THREADS"] == "3"
    assert required["VLLM_CPU_OMP_THREADS_BIND"] == "0,2,4"  # the first three of the four
    assert required["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert required["DO_NOT_TRACK"] == "0"
    assert required["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    bound = {"VLLM_CPU_OMP_THREADS_BIND": "5"}
    required = process.required_environment(bound, cuda=False, cpus=[0, 1], openmp=openmp)
    assert required["VLLM_CPU_OMP_THREADS_BIND"] == "5"


@pytest.mark.parametrize("nonsense", ["", "0", "-1", "many", "2,1"])
def test_a_thread_count_that_is_none_is_replaced(nonsense: str):
    required = process.required_environment(
        {"OMP_NUM_THREADS": nonsense}, cuda=False, cpus=[0, 1], openmp=Path("/absent")
    )
    assert required["OMP_NUM_THREADS"] == "2"


def test_each_rank_gets_its_share_of_the_cores():
    for rank, expected in (("0", "0-1"), ("1", "2-3")):
        ranks = {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": rank}
        required = process.required_environment(ranks, cuda=False, cpus=[0, 1, 2, 3])
        assert required["VLLM_CPU_OMP_THREADS_BIND"] == expected
        assert required["OMP_NUM_THREADS"] == "2"
    # More ranks than cores: rank 2 of 3 shares core 2 mod 2 = 0.
    ranks = {"LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "2"}
    required = process.required_environment(ranks, cuda=False, cpus=[4, 5])
    assert required["VLLM_CPU_OMP_THREADS_BIND"] == "4"


def test_the_one_thread_of_torchrun_is_not_a_choice():
    # torchrun sets OMP_NUM_THREADS=1 by itself when it starts several ranks.
    ranks = {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
    by_torchrun = {**ranks, "TORCHELASTIC_RUN_ID": "none"}
    cpus = [0, 1, 2, 3]
    assert process.required_environment(ranks, cuda=False, cpus=cpus)["OMP_NUM_THREADS"] == "1"
    assert (
        process.required_environment(by_torchrun, cuda=False, cpus=cpus)["OMP_NUM_THREADS"] == "2"
    )


def test_preloaded_libraries_are_kept_and_openmp_is_preloaded_once(openmp: Path):
    def preload(existing: str, library: Path = openmp) -> str | None:
        environ = {"LD_PRELOAD": existing}
        required = process.required_environment(
            environ, cuda=False, cpus=[0], openmp=library, allocator=NO_ALLOCATOR
        )
        return required.get("LD_PRELOAD")

    assert preload("/lib/a.so:/lib/b.so") == f"{openmp}:/lib/a.so:/lib/b.so"
    assert preload("/lib/a.so /lib/b.so") == f"{openmp}:/lib/a.so:/lib/b.so"
    assert preload(f"/lib/a.so:{openmp}") == f"/lib/a.so:{openmp}"
    # vLLM refuses to run with two OpenMP libraries, so the user's stays alone.
    assert preload("/lib/libgomp.so.1") == "/lib/libgomp.so.1"
    assert preload("", Path("/absent/libiomp5.so")) is None


def test_the_allocator_is_preloaded_where_there_is_one_and_none_is_chosen(
    openmp: Path, allocator: Path
):
    def preload(existing: str, library: Path = allocator) -> str | None:
        environ = {"LD_PRELOAD": existing}
        required = process.required_environment(
            environ, cuda=False, cpus=[0], openmp=openmp, allocator=library
        )
        return required.get("LD_PRELOAD")

    assert preload("") == f"{allocator}:{openmp}"
    assert preload(f"{openmp}:/lib/a.so") == f"{allocator}:{openmp}:/lib/a.so"
    assert preload("/opt/libjemalloc.so.2") == f"{openmp}:/opt/libjemalloc.so.2"
    assert preload(f"{allocator}:{openmp}") == f"{allocator}:{openmp}"
    assert preload("", NO_ALLOCATOR) == str(openmp)


def test_the_allocator_by_default_is_the_systems_own(openmp: Path):
    required = process.required_environment({}, cuda=False, cpus=[0], openmp=openmp)
    system = process.mimalloc()
    expected = [str(path) for path in (system, openmp) if path.is_file()]
    assert system.name == "libmimalloc.so"
    assert required["LD_PRELOAD"] == ":".join(expected)


def test_settings_once_applied_are_complete(openmp: Path):
    first = process.required_environment({}, cuda=False, cpus=[0, 1], openmp=openmp)
    assert process.required_environment(first, cuda=False, cpus=[0, 1], openmp=openmp) == first
    applied = process.required_environment({}, cuda=process.uses_gpu({}))
    assert process.missing(applied) == {}
    changed = {**applied, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    assert process.missing(changed) == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def test_cpu_lists_are_written_as_linux_writes_them():
    assert process.format_cpu_list([0, 1, 2, 6]) == "0-2,6"
    assert process.format_cpu_list([3, 1]) == "1,3"
    assert process.format_cpu_list([7]) == "7"


def test_cores_lie_within_the_affinity_mask():
    allowed = os.sched_getaffinity(0)
    assert 1 <= len(process.physical_cores()) <= len(allowed)
    assert set(process.physical_cores()) <= allowed
    try:
        os.sched_setaffinity(0, {max(allowed)})
        assert process.physical_cores() == [max(allowed)]
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_not_used(hidden: str):
    assert not process.uses_gpu({"CUDA_VISIBLE_DEVICES": hidden})


def test_a_process_restarts_once_with_the_same_arguments(tmp_path: Path):
    body = (
        "prepare_process()\n"
        "print(sys.argv[1:], os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'], "
        "'GROUPWISE_RESTARTED' in os.environ)\n"
    )
    starts, printed, errors = run_script(tmp_path, body)
    assert (starts, errors) == (2, "")
    assert printed == "['--steps', '3'] 0 False\n"


def test_a_setting_that_does_not_stick_cannot_loop(tmp_path: Path):
    starts, printed, _ = run_script(
        tmp_path,
        "os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'] = '1'\nprepare_process()\n"
        "print(os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'])\n",
    )
    assert (starts, printed) == (2, "0\n")


def test_under_a_launcher_it_says_what_to_export_and_goes_on(tmp_path: Path):
    body = (
        "from pathlib import Path\n"
        "from rollouts import process\n"
        "process.mimalloc = lambda: Path('lib/libmimalloc.so')\n"
        "sys.prefix = '.'; Path('lib').mkdir(); Path('lib/libiomp5.so').touch()\n"
        "prepare_process()\nprint(os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'])\n"
    )
    starts, printed, errors = run_script(tmp_path, body, RANK="0", CUDA_VISIBLE_DEVICES="")
    assert (starts, printed) == (1, "0\n")
    assert errors.splitlines()[1:] == [
        "export LD_PRELOAD=lib/libiomp5.so",
    ]


def test_a_function_called_with_other_arguments_does_not_restart_its_caller(tmp_path: Path):
    starts, _, _ = run_script(tmp_path, "prepare_process(['--steps', '4'])\n")
    assert starts == 1
    (tmp_path / "starts").unlink()
    starts, _, _ = run_script(tmp_path, "prepare_process(['--steps', '3'])\n")
    assert starts == 2


def test_the_module_prints_lines_for_a_shell():
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    line = f'eval "$({sys.executable} -m rollouts.process)"; echo $DO_NOT_TRACK $VLLM_LOGGING_LEVEL'
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 ERROR\n"
