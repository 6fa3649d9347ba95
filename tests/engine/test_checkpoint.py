"""Checkpoint files: whole or not at all, and never a program."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vosssl.engine import checkpoint
from vosssl.engine.checkpoint import FORMAT, is_ours, load, load_network, save


def content(value: float = 1.0) -> dict:
    return {"format": FORMAT, "network": {"weight": torch.full((3,), value)}, "ema": None, "step": 4}


class RunsCode:
    """What a malicious file holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path / "new" / "a.ckpt", content(2.5))
    back = load(tmp_path / "new" / "a.ckpt")
    assert back["step"] == 4 and torch.equal(back["network"]["weight"], torch.full((3,), 2.5))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.ckpt"]


def test_a_full_disk_keeps_the_old_file_and_says_how_much_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save(path, content(1.0))

    def half_written(part: Path, buffer) -> None:
        part.write_bytes(buffer.getvalue()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", half_written)
    with pytest.raises(
        OSError, match=r"disk full while writing .*last\.ckpt: it needs .* MB, .* MB are free; .* unchanged"
    ) as caught:
        save(path, content(2.0))
    assert caught.value.errno == errno.ENOSPC
    assert torch.equal(load(path)["network"]["weight"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_really_full_device_gives_the_same_error(tmp_path, monkeypatch):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda part, buffer: write(full, buffer))
    with pytest.raises(OSError, match="disk full while writing"):
        save(tmp_path / "last.ckpt", content())


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save(path, content(1.0))

    def crash(part: Path, buffer) -> None:
        part.write_bytes(buffer.getvalue()[:50])
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        save(path, content(2.0))
    assert torch.equal(load(path)["network"]["weight"], torch.ones(3))
    monkeypatch.undo()
    save(path, content(3.0))
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("protocol", ["pickle", "torch", "legacy torch"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "was-here"
    evil = {"format": FORMAT, "network": RunsCode(trace)}
    if protocol == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=protocol == "torch")
    with pytest.raises(
        ValueError, match=r"evil\.ckpt was refused: .*run (os|posix|nt)\.mkdir|could run code"
    ):
        load(path)
    assert not trace.exists() and not is_ours(path)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path, kept):
    path = tmp_path / "last.ckpt"
    save(path, content())
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept >= 1 else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"last\.ckpt .*(truncated|damaged)"):
        load(path)


def test_foreign_tensors_are_no_checkpoint_of_ours(tmp_path):
    torch.save({"blocks.0.weight": torch.ones(2)}, tmp_path / "dino.pth")
    with pytest.raises(ValueError, match=r"no checkpoint of this library.*blocks\.0\.weight"):
        load(tmp_path / "dino.pth")
    assert not is_ours(tmp_path / "dino.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint.*nothing\.ckpt"):
        load(tmp_path / "nothing.ckpt")


def test_another_models_checkpoint_names_what_differs():
    state = {"weight": torch.ones(5, 2), "extra": torch.ones(1)}
    with pytest.raises(
        ValueError,
        match=r"a\.ckpt belongs to another model than Linear: missing bias; unexpected extra; "
        r"of another shape weight \(5, 2\) instead of \(3, 2\)",
    ):
        load_network(nn.Linear(2, 3), {"network": state}, source="a.ckpt")


def test_the_average_is_loaded_where_there_is_one():
    network = nn.Linear(1, 1, bias=False)
    both = {"network": {"weight": torch.zeros(1, 1)}, "ema": {"weight": torch.ones(1, 1)}}
    load_network(network, both, source="a.ckpt")
    assert network.weight.item() == 1
    load_network(network, both, source="a.ckpt", prefer_ema=False)
    assert network.weight.item() == 0
    load_network(network, both | {"ema": None}, source="a.ckpt")
    assert network.weight.item() == 0


def test_a_network_may_complete_the_weights_of_an_earlier_stage():
    class Longer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4))

        def adapted_state(self, state):
            return {"weight": torch.cat([state["weight"], torch.zeros(1)])}

    network = Longer()
    load_network(network, content(2.0), source="stage.ckpt")
    assert network.weight.tolist() == [2, 2, 2, 0]


@pytest.mark.parametrize("value", [np.float64(1.0), Path("x"), {"deep": [object()]}, np.zeros(2)])
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, value):
    with pytest.raises(ValueError, match=r"content\['config'\].* of the checkpoint is a"):
        save(tmp_path / "a.ckpt", {"format": FORMAT, "config": value})
    assert not list(tmp_path.iterdir())
