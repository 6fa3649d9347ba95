"""python -m vosssl mode=train …: checks the command line, hands over to Hydra, then to one file in modes/."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vosssl.modes import config, helptext

MODES = ("train", "eval", "predict", "inspect", "benchmark")
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p")
USER_ERRORS = (ValueError, FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: what follows `python -m vosssl`; None takes sys.argv.

    Returns:
        The exit status: 0 done, 1 failed, 2 a command line that means nothing, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if config.chosen(arguments, "mode") in (None, "help") and not any(a.startswith("-") for a in arguments):
        sys.stdout.write(helptext.guide(arguments))
        return 0
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(helptext.guide(arguments))
        return 0
    try:
        arguments = config.offer_saved_config(arguments)
        check(arguments)
    except USER_ERRORS as error:
        return fail(error)
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra.main(config_path=str(config.config_dir()), config_name="main", version_base="1.3")(launch)()
    except KeyboardInterrupt as error:
        sys.stderr.write(f"vosssl: {error or 'interrupted'}\n")
        return 130
    return 0


def check(arguments: Sequence[str]) -> None:
    """Composes the configuration once, to say in one line what is wrong with the command line.

    Raises:
        ValueError: an unknown key, group option or mode, with what was probably meant.
    """
    mode = config.chosen(arguments, "mode")
    if mode is not None and "," not in mode and mode not in MODES:
        raise ValueError(f"there is no mode {mode!r}{config.closest(mode, [*MODES, 'help'])}")
    overrides = without_flags(arguments)
    for argument in overrides:
        if "=" not in argument and not argument.startswith("~"):
            raise ValueError(f"{argument!r} is not of the form key=value; `python -m vosssl` shows examples")
    sweeping = {"-m", "--multirun"} & set(arguments)
    if sweeping or any(flag in arguments for flag in ("--config-dir", "-cd")):
        return  # Hydra itself knows what a sweep's lists, or another folder of yaml files, mean
    with hydra.initialize_config_dir(config_dir=str(config.config_dir()), version_base="1.3"):
        try:
            hydra.compose("main", overrides=overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(helptext.explain(error, overrides)) from None


def without_flags(arguments: Sequence[str]) -> list[str]:
    """The key=value part of a command line: no `--multirun`, no `--config-dir FOLDER`."""
    overrides, flag = [], ""
    for argument in arguments:
        if not argument.startswith("-") and flag not in FLAGS_WITH_VALUE:
            overrides.append(argument)
        flag = argument
    return overrides


def launch(cfg: DictConfig) -> None:
    """Hydra's task: hands the composed configuration to the mode's file; user errors end as one line."""
    mode = importlib.import_module(f"vosssl.modes.{'evaluate' if cfg.mode == 'eval' else cfg.mode}")
    try:
        mode.run(cfg)
    except USER_ERRORS as error:
        if cfg.verbose or os.environ.get("HYDRA_FULL_ERROR"):
            logging.getLogger(__name__).exception("the run failed")
        sys.exit(fail(error))


def fail(error: BaseException) -> int:
    """One line on standard error; returns exit status 1."""
    text = str(error).strip() or type(error).__name__
    sys.stderr.write(f"vosssl: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
