"""mode=inspect without a model: training clips as the model gets them, and evaluation videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any, get_args

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vosssl.data.io import write_image
from vosssl.data.sampling import ClipLoader
from vosssl.engine.data_page import DataPage
from vosssl.engine.data_sample import DataSample, Part, Tally, read_sample, read_video, videos_in
from vosssl.modes.config import chosen
from vosssl.modes.session import data_of, start

log = logging.getLogger(__name__)


def is_meant(cfg: DictConfig) -> bool:
    """Whether data are to be looked at: data were chosen, a model was not (that of a recipe aside)."""
    model = cfg.resume or cfg.weights or chosen(HydraConfig.get().overrides.task, "method")
    return bool(cfg.get("data")) and not model


def run(cfg: DictConfig) -> None:
    """Writes inspect.html and inspect.png into a new run folder.

    Raises:
        FileNotFoundError, ValueError: the data are not there, or not as their yaml says.
    """
    parts, missing = parts_of(cfg)
    session = start(cfg)
    for part, reason in missing.items():
        log.warning("%-11s cannot be looked at: %s", part, reason)
    tallies: dict[Part, Tally] = {
        part: Tally.of(videos_in(dataset), clips=len(dataset) if part == "train" else None)
        for part, dataset in parts.items()
    }
    page = DataPage(tallies, missing=missing)
    for part, dataset in parts.items():
        reads = list(training_reads(cfg, dataset)) if part == "train" else evaluation_reads(cfg, dataset)
        for read in tqdm(reads, desc=part, unit="sample", leave=False):
            page.take(part, read)
    path = page.write(
        session.folder / "inspect.html",
        title=f"{cfg.data.name}: the data",
        config_text=OmegaConf.to_yaml(OmegaConf.create({"data": session.config["data"]})),
    )
    failures = [reason for tally in tallies.values() for reason in tally.failures]
    if failures and not any(tally.samples for tally in tallies.values()):
        raise ValueError(f"no sample can be read: {failures[0]}")
    write_image(session.folder / "inspect.png", page.contact_sheet())
    for part, tally in tallies.items():
        log.info("%-11s %s", part, tally.line())
    log.info("page        %s", path)
    log.info("sheet       %s", session.folder / "inspect.png")


def parts_of(cfg: DictConfig) -> tuple[dict[Part, Any], dict[Part, str]]:
    """The parts of the data that can be opened, and why others cannot: often one of them is on disk.

    Raises:
        FileNotFoundError, ValueError: none can.
    """
    parts: dict[Part, Any] = {}
    failures: dict[Part, FileNotFoundError | ValueError] = {}
    for part in get_args(Part):
        if cfg.data.get(part):
            try:
                parts[part] = data_of(cfg, part)
            except (FileNotFoundError, ValueError) as error:
                failures[part] = error
    if not parts:
        nothing = ValueError(f"data={cfg.data.get('name')} has neither a part train nor a part val")
        raise next(iter(failures.values()), nothing)
    return parts, {part: str(error) for part, error in failures.items()}


def training_reads(cfg: DictConfig, dataset: Any) -> Iterator[Callable[[], DataSample]]:
    """The clips that a training run with this seed and batch size reads, from step `inspect.step` on."""
    loader = ClipLoader(dataset, batch_size=cfg.train.batch_size, seed=cfg.seed)
    draws = (draw for step in count(cfg.inspect.step) for draw in loader.draws(step))
    for draw in islice(draws, cfg.inspect.clips):
        yield partial(read_sample, dataset, draw, max_frames=cfg.inspect.frames)


def evaluation_reads(cfg: DictConfig, dataset: Any) -> Iterator[Callable[[], DataSample]]:
    """The first evaluation videos."""
    for video in islice(dataset.videos(), cfg.inspect.clips):
        yield partial(read_video, video, max_frames=cfg.inspect.frames)
