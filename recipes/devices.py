"""Devices to plan for: how many, how much memory they have and how fast they are.

A GPU's figures are its maker's. A CPU is this machine's: the memory that is free, and a speed
guessed from its cores and their instructions.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from recipes.host_memory import free_memory
from rl.pace import Speed
from rollouts import process

GIB = 2**30
UNITS = {"gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6}
CORES = {"amx_bf16": 750e9, "avx512_bf16": 200e9, "": 50e9}
"""Floating-point operations a second of one core with such instructions, round figures."""
CORE_BANDWIDTH = 12e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a run is planned for."""

    name: str
    is_gpu: bool
    memory: int
    """Bytes of each; on a CPU those that are free for the run."""
    speed: Speed
    """Of each."""
    count: int = 1
    """GPUs, each with a process of its own."""
    machines: int = 1
    """That they are in."""
    has_bfloat16: bool = True

    @property
    def told(self) -> str:
        """What it has, in words."""
        free = " free" if self.name == "cpu" else " each" if self.count > 1 else ""
        return f"{self.name} has {self.memory / GIB:.1f} GiB{free}"


def _gpu(name: str, gib: float, teraflops: float, gb_per_s: float, **other: bool) -> Device:
    speed = Speed(flops=teraflops * 1e12, bandwidth=gb_per_s * 1e9)
    return Device(name=name, is_gpu=True, memory=int(gib * GIB), speed=speed, **other)


GPUS = {
    device.name: device
    for device in (
        # GiB as nvidia-smi shows them; TFLOP/s of dense 16-bit products; GB/s of memory.
        _gpu("t4", 15.0, 65, 320, has_bfloat16=False),
        _gpu("l4", 22.5, 121, 300),
        _gpu("rtx4090", 24.0, 165, 1008),
        _gpu("a100-40", 40.0, 312, 1555),
        _gpu("l40s", 45.0, 362, 864),
        _gpu("h100", 79.6, 989, 3350),
        _gpu("h800", 79.6, 989, 3350),
        _gpu("a100-80", 80.0, 312, 2039),
        _gpu("h20", 95.6, 148, 4000),
        _gpu("h200", 140.4, 989, 4800),
        _gpu("b200", 179.1, 2250, 7700),
    )
}
"""From the smallest to the largest."""


def find_device(name: str) -> Device:
    """The device of that name; a size such as 24GiB is this machine's CPU with so much memory.

    Example: 8xh100 is eight GPUs of one machine, 64x8xh800 are 64 machines with eight each.

    Raises:
        ValueError: No such device.
    """
    name = name.lower()
    several = re.fullmatch(r"([1-9]\d{0,3})x(?:([1-9]\d{0,3})x)?([a-z].*)", name)
    if several and several[3] in GPUS:
        machines = int(several[1]) if several[2] else 1
        count = int(several[1]) * int(several[2] or 1)
        return replace(GPUS[several[3]], name=name, count=count, machines=machines)
    if name in GPUS:
        return GPUS[name]
    if name == "cpu":
        return Device(name="cpu", is_gpu=False, memory=free_memory(), speed=cpu_speed())
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(gib|gb|mib|mb)", name)
    if size is None:
        raise ValueError(
            f"unknown device {name!r}: give cpu, {', '.join(GPUS)}, several of these such as "
            "8xh100, or a CPU's memory such as 24GiB"
        )
    memory = int(float(size[1]) * UNITS[size[2]])
    return Device(name=f"cpu {name}", is_gpu=False, memory=memory, speed=cpu_speed())


def cpu_speed() -> Speed:
    """A guess by the cores that this process may use, and their instructions."""
    flags = cpu_flags()
    flops = next(flops for flag, flops in CORES.items() if not flag or flag in flags)
    cores = len(process.physical_cores())
    return Speed(flops=cores * flops, bandwidth=cores * CORE_BANDWIDTH)


def cpu_flags() -> frozenset[str]:
    """What this CPU's instructions are called by Linux, such as amx_bf16."""
    text = Path("/proc/cpuinfo").read_text()
    return frozenset(text.partition("flags")[2].partition("\n")[0].split())
