"""Devices, and several processes that do what one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vosssl.engine import checkpoint
from vosssl.engine.distributed import World, current_world, is_main_process, process_group, resolve_device

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_together(processes: int, run_dir: Path, *options: str) -> None:
    """The training program under torchrun."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1"]
    finished = subprocess.run(
        [sys.executable, *launch, "--master-port", str(free_port()),
         str(Path(__file__).parent / "training_run.py"), str(run_dir), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    run_together(1, tmp_path / "one", "--steps", "20")
    run_together(2, tmp_path / "two", "--steps", "20", "--accumulate", "2")
    one, two = (checkpoint.load(tmp_path / name / "last.ckpt") for name in ("one", "two"))
    assert one["step"] == two["step"] == 20
    assert len(one["rng"]) == 1 and len(two["rng"]) == 2
    for part in ("network", "ema"):
        for name, weight in one[part].items():
            torch.testing.assert_close(two[part][name], weight, rtol=0, atol=1e-6)


def test_auto_is_a_device_of_this_machine():
    device = resolve_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert resolve_device("cpu") == torch.device("cpu")


def test_devices_that_are_not_there_are_named(monkeypatch):
    with pytest.raises(ValueError, match="device is 'gpu', expected auto"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda', but this machine has .*cpu"):
        resolve_device("cuda")


def test_cuda_is_preferred_to_mps_and_takes_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="CUDA device 2 was asked for, but this machine has 2"):
        resolve_device("auto")


def test_mps_is_taken_alone_and_never_shared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="processes cannot share"):
        resolve_device("mps")


def test_one_process_is_a_world_of_its_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    network = torch.nn.Linear(1, 1)
    with process_group("cpu") as world:
        assert world == World() == current_world("cpu")
        assert world.is_main and is_main_process()
        assert world.wrap(network) is network
        assert world.largest(1.0, 2.0) == (1.0, 2.0)
        assert world.gather("a") == ["a"]
