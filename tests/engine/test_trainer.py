"""The training loop: the same run however it is cut, stopped or watched."""

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.engine.training_run import SmallNetwork, StepLoader, make_trainer, reconstruction
from vosssl.engine import checkpoint
from vosssl.engine.batches import split_batch
from vosssl.engine.distributed import World
from vosssl.engine.interrupt import TrainingStoppedError
from vosssl.engine.logs import NonFiniteLossError
from vosssl.engine.rng import preserved_rng, seed_everything
from vosssl.engine.schedule import WarmupCosine
from vosssl.engine.trainer import Trainer

ROOT = Path(__file__).parents[2]


def trainer(run_dir: Path, *, network: nn.Module | None = None, **options) -> Trainer:
    torch.manual_seed(0)
    network = network or SmallNetwork()
    options = {
        "steps": 10,
        "bar": False,
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.1),
    } | options
    objective = options.pop("objective", reconstruction)
    return Trainer(
        network, objective, StepLoader(), options.pop("optimizer"), options.pop("schedule", None),
        run_dir=run_dir, **options,
    )  # fmt: skip


def weights(one: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in one.network.parameters()])


def program(run_dir: Path, *options: str) -> subprocess.Popen:
    """The training program, as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "training_run.py"), str(run_dir), *options],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=120)
    return errors


def assert_same_state(one: object, other: object, where: str = "checkpoint") -> None:
    """Bit for bit, times excepted."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"seconds"}:
            assert_same_state(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same_state(left, right, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def test_one_step_of_gradient_descent_is_the_one_worked_out_by_hand(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    run = trainer(
        tmp_path,
        network=network,
        objective=lambda net, batch, step: {
            "square": net.weight.square().sum(),
            "constant": torch.tensor(2.0),
        },
        steps=1,
    )
    result = run.fit()
    assert network.weight.item() == pytest.approx(3.0 - 0.1 * 6.0)
    assert result.losses == pytest.approx(
        {"square": 9.0, "constant": 2.0, "loss": 11.0, "gradient_norm": 6.0}
    )


def test_clipping_limits_the_gradient_norm(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    objective = lambda net, batch, step: {"square": net.weight.square().sum()}  # noqa: E731
    trainer(tmp_path, network=network, objective=objective, steps=1, clip_norm=0.5).fit()
    assert network.weight.item() == pytest.approx(3.0 - 0.1 * 0.5, rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulated_parts_give_the_step_of_the_whole_batch(tmp_path, parts):
    whole, cut = trainer(tmp_path / "a"), trainer(tmp_path / "b", accumulate=parts)
    whole.fit()
    cut.fit()
    torch.testing.assert_close(weights(cut), weights(whole), rtol=0, atol=1e-6)


def test_more_parts_than_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="accumulate is 9, but a process gets 8 clips"):
        trainer(tmp_path, accumulate=9).fit()


def test_parts_of_a_batch_hold_every_clip_once():
    batch = next(StepLoader().batches(3))
    parts = split_batch(batch, 3)
    assert [len(part) for part in parts] == [2, 3, 3]
    assert sum((part.names for part in parts), ()) == batch.names
    assert torch.equal(torch.cat([part.seeds for part in parts]), batch.seeds)
    assert torch.equal(torch.cat([part.frames for part in parts]), batch.frames)


def test_the_average_of_a_constant_weight_is_that_weight_and_lags_behind_a_moving_one(tmp_path):
    still = trainer(tmp_path / "a", ema=0.99, optimizer=torch.optim.SGD([nn.Parameter(torch.ones(1))]))
    before = weights(still).clone()
    still.fit()
    averaged = torch.cat([weight.flatten() for weight in still.average.network.parameters()])
    torch.testing.assert_close(averaged, before, rtol=0, atol=1e-6)

    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    objective = lambda net, batch, step: {"down": net.weight.sum()}  # noqa: E731
    moving = trainer(tmp_path / "b", network=network, objective=objective, steps=2, ema=0.5)
    moving.fit()  # 1 -> 0.9 -> 0.8, decay 1/10 then 2/11
    first = 0.1 * 1.0 + 0.9 * 0.9
    assert moving.average.network.weight.item() == pytest.approx(2 / 11 * first + 9 / 11 * 0.8)


def test_frozen_weights_are_shared_with_the_average_not_copied(tmp_path):
    network = SmallNetwork()
    network.hidden.requires_grad_(False)
    run = trainer(
        tmp_path, network=network, ema=0.9, optimizer=torch.optim.SGD(network.out.parameters(), lr=0.1)
    )
    assert run.average.network.hidden.weight is network.hidden.weight
    assert run.average.network.out.weight is not network.out.weight


def test_looking_more_often_changes_no_weight(tmp_path):
    def noisy(network, step):
        random.random(), np.random.rand(), torch.rand(3)
        return {"score": 1.0}

    def monitor(network, batch, step):
        assert not network.training
        return {"slots/used": float(torch.rand(()))}

    plain = make_trainer(tmp_path / "a", world=World(), steps=12, accumulate=1, drawn=True)
    watched = make_trainer(tmp_path / "b", world=World(), steps=12, accumulate=1, drawn=True)
    watched.validate, watched.validate_every, watched.best_metric = noisy, 1, "score"
    watched.monitors, watched.monitor_every, watched.log_every, watched.save_every = [monitor], 1, 1, 1
    seed_everything(5)
    plain.fit()
    seed_everything(5)
    watched.fit()
    assert torch.equal(weights(plain), weights(watched))


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    scores = {2: 0.3, 4: 0.9, 6: 0.5}
    run = trainer(
        tmp_path, steps=6, validate=lambda net, step: {"J": scores[step]}, validate_every=2, best_metric="J"
    )
    result = run.fit()
    assert (result.best, result.best_step, result.metrics) == (0.9, 4, {"J": 0.5})
    assert checkpoint.load(tmp_path / "best.ckpt")["step"] == 4
    assert checkpoint.load(tmp_path / "last.ckpt")["step"] == 6
    assert run.fit().steps == 6  # a finished run stays as it is


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    scores = {2: float("nan"), 4: 0.2, 6: float("nan")}
    options = {"validate_every": 2, "best_metric": "J", "steps": 6}
    result = trainer(tmp_path, validate=lambda net, step: {"J": scores[step]}, **options).fit()
    assert (result.best, result.best_step) == (0.2, 4)


def test_the_stream_of_batches_is_closed_however_training_ends(tmp_path):
    closed = []

    class Watched(StepLoader):
        def batches(self, start_step=0):
            try:
                yield from super().batches(start_step)
            finally:
                closed.append(start_step)

    def broken(network, batch, step):
        raise RuntimeError("broken objective")

    run = trainer(tmp_path, steps=2)
    run.loader = Watched()
    run.fit()
    run.objective, run.steps = broken, 4
    with pytest.raises(RuntimeError, match="broken objective"):
        run.fit()
    assert closed == [0, 2]


def test_a_metric_that_validation_does_not_give_is_named(tmp_path):
    with pytest.raises(ValueError, match="best_metric is 'J', but validation gives F, G"):
        trainer(tmp_path, validate=lambda net, step: {"F": 1.0, "G": 0.0}, best_metric="J").fit()


def test_an_alarm_is_warned_of_once_and_holds_until_it_is_over(tmp_path, caplog):
    def monitor(network, batch, step):
        return {"slots/used": 2.0, "alarm/collapse": float(step >= 4), "alarm/quiet": 0.0}

    with caplog.at_level(logging.WARNING, logger="vosssl"):
        result = trainer(tmp_path, monitors=[monitor], monitor_every=2).fit()
    assert result.alarms == ("alarm/collapse",)
    assert [record.getMessage() for record in caplog.records] == ["alarm at step 4: collapse"]
    assert checkpoint.load(tmp_path / "last.ckpt")["alarms"] == ["alarm/collapse"]


def test_a_time_budget_ends_the_run_and_its_cosine(tmp_path):
    def slow(network, batch, step):
        time.sleep(0.01)
        return reconstruction(network, batch, step)

    run = trainer(tmp_path, objective=slow, schedule=WarmupCosine(2), steps=10**6, max_seconds=0.6)
    result = run.fit()
    assert 3 < result.steps < 100 and 0.6 <= result.seconds < 5
    assert run.fraction == 1.0 and run.optimizer.param_groups[0]["lr"] < 0.1 * 0.1
    assert checkpoint.load(tmp_path / "last.ckpt")["schedule"]["seconds"] == result.seconds


@pytest.mark.parametrize("broken", ["mse", "contrast"])
def test_a_loss_that_is_not_finite_names_step_term_and_clips_and_saves_nothing(tmp_path, broken):
    def objective(network, batch, step):
        bad = torch.tensor(float("nan") if step == 5 else 0.0)
        terms = {"mse": reconstruction(network, batch, step)["mse"], "contrast": torch.tensor(1.0)}
        return terms | {broken: terms[broken] + bad}

    with pytest.raises(
        NonFiniteLossError, match=rf"{broken} and loss.* not finite at step 5, on clips clip40, "
    ) as caught:
        trainer(tmp_path, objective=objective, save_every=2).fit()
    assert caught.value.clip_names == tuple(f"clip{index}" for index in range(40, 48))
    kept = checkpoint.load(tmp_path / "last.ckpt")
    assert kept["step"] == 4 and all(value.isfinite().all() for value in kept["network"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_too(tmp_path):
    def objective(network, batch, step):
        return {"root": network.out.bias.sub(network.out.bias.detach()).square().sum().sqrt()}

    with pytest.raises(NonFiniteLossError, match="gradient_norm not finite at step 0"):
        trainer(tmp_path, objective=objective).fit()
    assert not (tmp_path / "last.ckpt").exists()


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = trainer(tmp_path, save_every=4)
    write = checkpoint._write

    def full(part, buffer):
        if run.step > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(part, buffer)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match=r"disk full while writing .*last\.ckpt"):
        run.fit()
    assert checkpoint.load(tmp_path / "last.ckpt")["step"] == 4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_and_keeps_full_precision_weights(tmp_path, precision):
    run = trainer(tmp_path, precision=precision, steps=40, log_every=1)
    first = reconstruction(run.network, next(StepLoader().batches()), 0)["mse"].item()
    result = run.fit()
    assert result.losses["mse"] < 0.7 * first
    assert all(weight.dtype == torch.float32 for weight in run.network.parameters())


def test_a_run_goes_on_with_its_own_rate_and_says_so(tmp_path, caplog):
    trainer(tmp_path, steps=1).fit()
    network = SmallNetwork()
    run = trainer(tmp_path, network=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.7))
    with caplog.at_level("WARNING"):
        run.resume(tmp_path / "last.ckpt")
    assert run.optimizer.param_groups[0]["initial_lr"] == 0.1
    assert "goes on with lr=0.1 as saved" in caplog.text and "not with 0.7" in caplog.text


def test_a_run_without_loss_scaling_may_go_on_with_it(tmp_path):
    trainer(tmp_path, steps=1).fit()
    run = trainer(tmp_path, precision="fp16")
    run.resume(tmp_path / "last.ckpt")
    assert run.fit().steps == 10


def test_another_kind_of_optimizer_cannot_go_on(tmp_path):
    trainer(tmp_path, steps=1).fit()
    network = SmallNetwork()
    run = trainer(tmp_path, network=network, optimizer=torch.optim.Adam(network.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"another optimizer, .*momentum.* expected those of Adam"):
        run.resume(tmp_path / "last.ckpt")


def test_what_does_not_belong_to_the_run_cannot_be_resumed(tmp_path):
    trainer(tmp_path, steps=1).fit()
    other = SmallNetwork()
    other.extra = nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match=r"belongs to another model than SmallNetwork: missing extra\.weight"
    ):
        trainer(tmp_path, network=other).resume(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="was saved without a weight average"):
        trainer(tmp_path, ema=0.9).resume(tmp_path / "last.ckpt")
    network = SmallNetwork()
    groups = [{"params": network.hidden.parameters()}, {"params": network.out.parameters()}]
    with pytest.raises(ValueError, match="saved with another optimizer"):
        trainer(tmp_path, network=network, optimizer=torch.optim.SGD(groups, lr=0.1)).resume(
            tmp_path / "last.ckpt"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"precision": "fp8"}, "precision is 'fp8', expected one of fp32, bf16, fp16"),
        ({"world": World(size=3)}, "batch size 8 cannot be shared evenly by 3 processes"),
        ({"ema": 1.5}, "ema is 1.5, expected a decay"),
        ({"objective": lambda net, batch, step: {"mse": batch.frames}}, "expected at least one scalar"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options).fit()


def test_groups_are_logged_by_their_names(tmp_path, caplog):
    network = SmallNetwork()
    groups = [
        {"params": network.hidden.parameters(), "name": "encoder", "lr": 0.5},
        {"params": network.out.parameters()},
    ]
    run = trainer(tmp_path, network=network, optimizer=torch.optim.SGD(groups, lr=0.1), log_every=5)
    run.fit()
    text = (tmp_path / "log.txt").read_text()
    assert "lr/encoder 0.5 lr/group1 0.1" in text and "clips/s" in text and "left" in text
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("train/mse")] == [5, 10]
    assert curves.Scalars("lr/encoder")[-1].value == 0.5
    speeds = {"speed/clips_per_second", "speed/data_wait_share", "speed/peak_memory_gb"}
    assert speeds <= set(curves.Tags()["scalars"])


def test_preserved_generators_go_on_as_if_nothing_was_drawn():
    seed_everything(3)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    seed_everything(3)
    with preserved_rng():
        random.random(), np.random.rand(), torch.rand(5)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_a_run_killed_at_a_random_moment_and_resumed_is_bit_identical(tmp_path):
    options = ("--random", "--steps", "60", "--accumulate", "2")
    whole = program(tmp_path / "whole", *options)
    killed = program(tmp_path / "killed", *options, "--pause", "0.02")
    wait_for(tmp_path / "killed" / "last.ckpt", killed)
    moment = random.SystemRandom().uniform(0.0, 0.6)
    time.sleep(moment)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    assert killed.returncode == -signal.SIGKILL
    at = checkpoint.load(tmp_path / "killed" / "last.ckpt")["step"]
    assert 0 < at < 60, f"killed {moment} s after the first checkpoint, at step {at}"
    resumed = program(tmp_path / "killed", *options, "--resume")
    for process in (whole, resumed):
        errors = finish(process)
        assert process.returncode == 0, errors
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_state(
            checkpoint.load(tmp_path / "whole" / name), checkpoint.load(tmp_path / "killed" / name), name
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_finishes_the_step_saves_and_says_how_to_resume(tmp_path, number):
    def objective(network, batch, step):
        if step == 3:
            os.kill(os.getpid(), number)
        return reconstruction(network, batch, step)

    before = signal.getsignal(number)
    run = trainer(tmp_path, objective=objective)
    with pytest.raises(
        TrainingStoppedError, match=rf"{number.name} after step 4; saved .*resume=.*last\.ckpt"
    ):
        run.fit()
    assert signal.getsignal(number) is before
    resumed = trainer(tmp_path)
    resumed.resume(tmp_path / "last.ckpt")
    assert resumed.step == 4
    resumed.fit()
    whole = trainer(tmp_path / "whole")
    whole.fit()
    assert torch.equal(weights(resumed), weights(whole))


def test_a_second_ctrl_c_aborts_at_once(tmp_path):
    def objective(network, batch, step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("never reached")

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, objective=objective).fit()
    assert not (tmp_path / "last.ckpt").exists()


def test_the_fake_loader_is_a_function_of_the_step():
    ahead = list(islice(StepLoader().batches(), 5))
    assert torch.equal(ahead[3].frames, next(StepLoader().batches(3)).frames)
