"""The whole state of a training run as a checkpoint's content, and back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vosssl.engine import checkpoint
from vosssl.engine.rng import set_rng_state

if TYPE_CHECKING:
    from vosssl.engine.trainer import Trainer

logger = logging.getLogger(__name__)
_NEEDED = ("network", "ema", "optimizer", "schedule", "scaler", "step", "rng", "metrics", "best", "alarms")


def captured(trainer: Trainer, generators: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run needs to go on as if it had never stopped.

    Args:
        trainer: the run, between two steps.
        generators: state of the random number generators of each process.

    Returns:
        The content of a checkpoint, see `checkpoint`.
    """
    return {
        "format": checkpoint.FORMAT,
        "config": dict(trainer.config),
        "network": trainer.network.state_dict(),
        "ema": trainer.average.network.state_dict() if trainer.average else None,
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": {"name": repr(trainer.schedule), "steps": trainer.steps, "seconds": trainer.seconds},
        "scaler": trainer.scaler.state_dict(),
        "step": trainer.step,
        "rng": generators,
        "metrics": trainer.metrics,
        "best": trainer.best,
        "alarms": list(trainer.alarms),
    }


def restore(trainer: Trainer, path: Path | str) -> None:
    """Puts a checkpoint's state into a run.

    Args:
        trainer: a run of the same network, optimiser and kind of average.
        path: a checkpoint that holds a run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, foreign, no run, or of another network, optimiser or average; says which.
    """
    content = checkpoint.load(path)
    absent = [key for key in _NEEDED if key not in content]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}: no run can go on from it; give it as weights")
    if (content["ema"] is None) != (trainer.average is None):
        saved = "without" if content["ema"] is None else "with"
        raise ValueError(f"{path} was saved {saved} a weight average (ema) and this run not; set ema alike")
    checkpoint.load_state(trainer.network, content["network"], source=path)
    if trainer.average:
        checkpoint.load_state(trainer.average.network, content["ema"], source=path)
    _restore_optimizer(trainer.optimizer, content["optimizer"], path)
    if content["scaler"]:  # empty where the run had no loss scaling so far; then it begins now
        trainer.scaler.load_state_dict(content["scaler"])
    trainer.step = content["step"]
    trainer.seconds = content["schedule"]["seconds"]
    trainer.metrics, trainer.best, trainer.alarms = content["metrics"], content["best"], content["alarms"]
    generators, place = content["rng"], trainer.place
    if len(generators) != place.size:
        logger.warning(
            "%s was saved by %d processes and goes on with %d: batches stay the same, other draws do not",
            *(path, len(generators), place.size),
        )
    set_rng_state(generators[place.rank % len(generators)])


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any], path: Path | str) -> None:
    """Loads an optimizer's state; says where its settings are those saved, not those given now."""
    given = [_settings(group) for group in optimizer.param_groups]
    kept = [_settings(group) for group in saved["param_groups"]]
    for now, was in zip(given, kept, strict=False):
        if now.keys() - was.keys() and was.keys() - now.keys():  # another torch version only adds or drops
            raise ValueError(
                f"{path} was saved with another optimizer, of settings {', '.join(was)}; "
                f"expected those of {type(optimizer).__name__}: {', '.join(now)}"
            )
    try:
        optimizer.load_state_dict(saved)
    except ValueError as error:
        raise ValueError(f"{path} was saved with another optimizer or other groups: {error}") from error
    for now, was in zip(given, kept, strict=True):
        changed = [name for name in now.keys() & was.keys() if now[name] != was[name]]
        for name in sorted(changed):
            logger.warning(
                "the optimizer goes on with %s=%s as saved in %s, not with %s; another value is a new run: "
                "give the file as weights= instead of resume=",
                *(name, was[name], path, now[name]),
            )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """What was chosen for a group of parameters; the rate before the schedule."""
    chosen = {name: value for name, value in group.items() if name not in ("params", "name", "initial_lr")}
    return chosen | {"lr": group.get("initial_lr", group["lr"])}
