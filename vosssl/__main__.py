"""python -m vosssl mode=train …: checks the command line, hands over to Hydra, then to one file in modes/."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vosssl.modes import config, helptext

MODES = ("train", "eval", "predict", "inspect", "benchmark", "export", "annotate", "download", "check")
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p")
OWN_CONFIG_FLAGS = ("--config-name", "-cn", "--config-path", "-cp")  # another main.yaml: Hydra alone knows it
USER_ERRORS = (ValueError, OSError)
MOST_VALUES = 50  # of one key in a sweep that are checked before it starts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: what follows `python -m vosssl`; None takes sys.argv.

    Returns:
        The exit status: 0 done, 1 failed, 2 a command line that means nothing, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if config.chosen(arguments, "mode") in (None, "help") or {"-h", "--help"} & set(arguments):
            sys.stdout.write(helptext.guide(arguments))
            return 0
        arguments = config.offer_saved_config(config.long_names(arguments))
        check(arguments)
    except USER_ERRORS as error:
        return fail(error)
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra.main(config_path=str(config.config_dir()), config_name="main", version_base="1.3")(launch)()
    except KeyboardInterrupt as error:
        say(str(error) or "interrupted")
        return 130
    return 0


def check(arguments: Sequence[str]) -> None:
    """Composes the configuration, to say in one line what is wrong with the command line.

    Raises:
        ValueError: an unknown key, group option or mode, with what was probably meant, or an odd value.
        FileNotFoundError: there is no folder as `--config-dir` says.
    """
    overrides, where = without_flags(arguments), config.folders(arguments)
    parsed = [parse(argument) for argument in overrides]
    sweeping = {"-m", "--multirun"} & set(arguments)
    for override in parsed:
        if override.is_sweep_override() and not sweeping:
            raise ValueError(
                f"{override.input_line!r} lists several values; add --multirun for a run of each, or "
                "brackets for one value that is a list"
            )
    if any(argument.partition("=")[0] in OWN_CONFIG_FLAGS for argument in arguments):
        return
    path = f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in where[1:])}]"
    with hydra.initialize_config_dir(config_dir=str(config.config_dir()), version_base="1.3"):
        for values in combinations(parsed):
            try:
                composed = hydra.compose("main", overrides=[*values, *([path] if where[1:] else [])])
            except (HydraException, OmegaConfBaseException) as error:
                raise ValueError(helptext.explain(error, values, where=where)) from None
            if composed.mode not in MODES:
                near = config.closest(str(composed.mode), [*MODES, "help"])
                raise ValueError(f"there is no mode {composed.mode!r}{near}")
            config.check_values(composed)


def parse(argument: str) -> Override:
    """One key=value of the command line.

    Raises:
        ValueError: it cannot be read as one.
    """
    if "=" not in argument and not argument.startswith("~"):
        raise ValueError(f"{argument!r} is not of the form key=value; `python -m vosssl` shows examples")
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        raise ValueError(
            f"{argument!r} cannot be read; put quotes around a value with brackets, commas, spaces or equal "
            f"signs, and around the whole for your shell: '{argument.partition('=')[0]}=\"…\"'"
        ) from None


def combinations(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Command lines without lists that together hold every value of a sweep."""
    lists = [values_of(override) for override in parsed]
    yield [values[0] for values in lists]
    for place, values in enumerate(lists):
        for value in values[1:MOST_VALUES]:
            yield [value if at == place else first[0] for at, first in enumerate(lists)]


def values_of(override: Override) -> list[str]:
    """`seed=0,1` -> `seed=0`, `seed=1`; what is not a list is itself."""
    text = str(override.input_line)
    if not override.is_discrete_sweep():
        return [text]
    return [f"{text.partition('=')[0]}={value}" for value in override.sweep_string_iterator()]


def without_flags(arguments: Sequence[str]) -> list[str]:
    """The key=value part of a command line: no `--multirun`, no `--config-dir FOLDER`."""
    overrides: list[str] = []
    flag = ""
    for argument in arguments:
        if not argument.startswith("-") and flag not in FLAGS_WITH_VALUE:
            overrides.append(argument)
        flag = argument
    return overrides


def launch(cfg: DictConfig) -> None:
    """Hydra's task: hands the composed configuration to the mode's file; errors end as one line."""
    try:
        mode = importlib.import_module(f"vosssl.modes.{'evaluate' if cfg.mode == 'eval' else cfg.mode}")
        mode.run(cfg)
    except Exception as error:
        known = isinstance(error, USER_ERRORS)
        if cfg.verbose or os.environ.get("HYDRA_FULL_ERROR"):
            traceback.print_exception(error)
        sys.exit(fail(error, note="" if known else keep_trace(error)))


def keep_trace(error: Exception) -> str:
    """Puts the trace of what nobody foresaw into the run's log; returns where to read it."""
    from vosssl.modes.session import log_failure  # imports torch

    path = log_failure("".join(traceback.format_exception(error)))
    if path is None:
        traceback.print_exception(error)
        return ""
    return f" (not foreseen: an error in vosssl or in your own code; its trace is in {path})"


def fail(error: BaseException, *, note: str = "") -> int:
    """One line on standard error; returns exit status 1."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not isinstance(error, USER_ERRORS):
        text = f"{type(error).__name__}: {text}"
    say((text or type(error).__name__) + note)
    return 1


def say(text: str) -> None:
    """A line on standard error, whatever the text held."""
    sys.stderr.write(f"vosssl: {' '.join(text.split())}\n")


if __name__ == "__main__":
    sys.exit(main())
