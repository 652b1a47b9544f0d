"""The core of this process among those that run the suite beside each other (pytest-xdist)."""

import os

from rollouts.process import physical_cores

_CORES = physical_cores()
_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ONE_CORE = {
    "OMP_NUM_THREADS": "1",  # tiny models; two threads of GNU OpenMP are slower
    "VLLM_CPU_OMP_THREADS_BIND": str(_CORES[_NUMBER % len(_CORES)]),
}
