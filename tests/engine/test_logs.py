"""What a run says about itself, on any system."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from vosssl.engine import logs


def test_peak_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < logs.peak_memory(torch.device("cpu")) < 10**12


def test_a_system_that_does_not_tell_its_memory_can_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    spec = importlib.util.spec_from_file_location("logs_on_windows", logs.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.peak_memory(torch.device("cpu")) == 0
