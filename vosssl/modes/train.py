"""mode=train: learn a model, stage after stage, then evaluate it beside the trivial baselines."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, open_dict
from torch import nn
from tqdm import tqdm

from vosssl.backbones.weights import load_weights
from vosssl.data.cache import CachedFeatures, FeatureCache, cache_key
from vosssl.data.sampling import ClipDataset, ClipLoader
from vosssl.engine import distributed
from vosssl.engine.batches import closed_after
from vosssl.engine.interrupt import TrainingStoppedError
from vosssl.engine.logs import NonFiniteLossError, compact
from vosssl.engine.memory_forecast import forecast_memory, require_memory
from vosssl.engine.parameter_groups import parameter_groups
from vosssl.engine.rng import preserved_rng
from vosssl.engine.trainer import FitResult, Trainer
from vosssl.layers.frame_encoders import FrozenBackbone
from vosssl.layers.slot_network import SlotNetwork
from vosssl.modes import config, evaluate, pictures
from vosssl.modes.build import build
from vosssl.modes.session import Session, data_of, from_checkpoint, network_of, require, start

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Trains the method on the data, evaluates it, and says what came out and what to type next.

    Raises:
        ValueError: the recipe is not complete, or a loss was not finite (names the clips).
    """
    require(cfg, "method", why="mode=train")
    if "objective" not in cfg.method:
        raise ValueError(f"{cfg.method.name} has nothing to learn; recipes: python -m vosssl mode=help")
    with distributed.process_group(cfg.device) as world:
        session = start(cfg, folder=Path(cfg.resume).parent if cfg.resume else None, world=world)
        if cfg.first_stage and not cfg.resume:
            train_first_stage(cfg, session)
        clips: ClipDataset = data_of(cfg, "train")  # before any download: a wrong root is told at once
        if is_scored(cfg):
            data_of(cfg, "val")
        if cfg.train.get("dry_run"):
            dry_run(cfg, session, network_of(cfg, session), clips)
            return
        network = network_of(cfg, session, weights=cfg.resume or cfg.weights)
        if not cfg.resume and not cfg.weights:
            load_backbone(cfg, network)
        result = fit(cfg, session, network, clips)
        if world.is_main:
            finish(cfg, session, network, result)


def fit(cfg: DictConfig, session: Session, network: nn.Module, clips: ClipDataset) -> FitResult:
    """Runs the trainer to its end.

    Returns:
        What the trainer did; `network` then holds the averaged weights where there is an average.

    Raises:
        KeyboardInterrupt: training was stopped; the message says how to go on.
        ValueError: a loss was not finite.
    """
    trainer = trainer_of(cfg, session, network, clips)
    if session.world.is_main and not cfg.resume:
        log_floors(cfg, session, network)
    if cfg.resume:
        resume(trainer, cfg, session)
        if trainer.fraction >= 1:
            log.warning(
                "nothing is left to train: step %d of %d; give more train.steps", trainer.step, trainer.steps
            )
    try:
        result = trainer.fit()
    except TrainingStoppedError as stopped:
        raise KeyboardInterrupt(
            f"stopped at step {stopped.step}, everything is saved; go on with: {again(stopped.checkpoint)}"
        ) from None
    except NonFiniteLossError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not trainer.last_path.is_file():
            raise
        raise OSError(
            error.errno, f"{error.strerror}; then go on with: {again(trainer.last_path)}"
        ) from error
    if trainer.average is not None:
        network.load_state_dict(trainer.evaluated_network.state_dict())
    return result


def dry_run(cfg: DictConfig, session: Session, network: nn.Module, clips: ClipDataset) -> None:
    """Says how much memory a training step will need, without weights and without computing one.

    Raises:
        ValueError: more than `train.memory_budget_gb`, or than there is; says what to change.
    """
    trainer = trainer_of(cfg, session, network, clips)
    with closed_after(trainer.loader.batches()) as batches:
        forecast = forecast_memory(
            network,
            trainer.objective,
            next(batches),
            trainer.optimizer,
            precision=trainer.precision,
            accumulate=trainer.accumulate,
            averaged=trainer.average is not None,
        )
    require_memory(forecast, session.device, budget_gb=cfg.train.memory_budget_gb)
    log.info("training will need %s", forecast)


def log_floors(cfg: DictConfig, session: Session, network: nn.Module) -> None:
    """Says what the validation numbers have to beat, where masks are followed by label propagation."""
    watch = evaluate.Validation.of(cfg, session)
    with preserved_rng(), torch.no_grad():
        floors = watch.floors(network.eval()) if watch else {}  # batch norms must not learn from it
    if floors:
        log.info("validation, J&F without training: %s", compact(floors))


def resume(trainer: Trainer, cfg: DictConfig, session: Session) -> None:
    """Puts a run back, and says what of its configuration was changed; the optimiser's new settings hold.

    Raises:
        ValueError: a checkpoint that does not fit, or of another optimiser.
    """
    changed = config.changes(config.saved_config(cfg.resume), session.config)
    if "optimizer._target_" in changed:
        before, now = changed["optimizer._target_"]
        raise ValueError(
            f"{cfg.resume} was trained with {before}, which {now} cannot go on from; to start anew from its "
            f"weights give weights={cfg.resume} instead of resume"
        )
    asked = [dict(group) for group in trainer.optimizer.param_groups]
    trainer.resume(cfg.resume)
    for key, (before, now) in changed.items():
        log.info("changed since the checkpoint: %s %s -> %s", key, before, now)
    if any(key.startswith(("optimizer.", "train.parameter_groups")) for key in changed):
        for group, new in zip(trainer.optimizer.param_groups, asked, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})


def again(path: Path, mode: str = "train") -> str:
    """What to type to go on with a checkpoint."""
    return f"python -m vosssl mode={mode} resume={path}"


def is_scored(cfg: DictConfig) -> bool:
    """Whether the trained model is evaluated: it gives masks, and the data have a part for that."""
    return "segmenter" in cfg.method and bool((cfg.get("data") or {}).get("val"))


def trainer_of(cfg: DictConfig, session: Session, network: nn.Module, clips: ClipDataset) -> Trainer:
    """The trainer that a recipe describes.

    Args:
        cfg: the composed configuration.
        session: the run.
        network: on any device.
        clips: what it trains on.

    Returns:
        The trainer, at step 0.
    """
    settings, world = cfg.train, session.world
    trusted = from_checkpoint("hparam")
    objective = build(cfg.method.objective, trusted_only=from_checkpoint("method"))
    if hasattr(objective, "prepare"):
        objective.prepare(network)
    groups = parameter_groups(network, settings.parameter_groups or (), lr=cfg.optimizer.get("lr"))
    loader = ClipLoader(
        clips if settings.cache is None else cached_clips(cfg, session, network, clips),
        batch_size=settings.batch_size,
        seed=cfg.seed,
        workers=settings.workers,
        rank=world.rank,
        world=world.size,
    )
    watch = evaluate.Validation.of(cfg, session)
    return Trainer(
        network,
        objective,
        loader,
        build(cfg.optimizer, trusted_only=trusted, params=groups),
        build(cfg.schedule, trusted_only=trusted) if cfg.schedule else None,
        steps=settings.steps,
        run_dir=session.folder,
        precision=settings.precision,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
        compile=settings.compile,
        max_seconds=settings.max_seconds,
        validate=watch.scores if watch else None,
        validate_every=settings.validate_every,
        images=watch.images if watch else None,
        monitors=[pictures.CollapseMonitor(objective)] if pictures.finds_slots(network) else [],
        monitor_every=settings.monitor_every,
        log_every=settings.log_every,
        save_every=settings.save_every,
        best_metric=settings.best_metric if watch else None,
        best_mode=settings.best_mode,
        config=session.config,
        world=world,
        find_unused_parameters=getattr(objective, "leaves_weights_unused", False),
    )


def load_backbone(cfg: DictConfig, network: nn.Module) -> None:
    """Gives a backbone, or the parts that a mapping names, the weights of the method; downloaded once."""
    named = cfg.method.get("backbone_weights")
    if isinstance(named, DictConfig):
        for part, weights in named.items():
            load_weights(network.get_submodule(str(part)), weights)
    elif named:
        backbone = frozen_backbone(network)
        load_weights(network if backbone is None else backbone.model, named)


def frozen_backbone(network: nn.Module) -> FrozenBackbone | None:
    """The part of a network that training leaves as it is."""
    return next((part for part in network.modules() if isinstance(part, FrozenBackbone)), None)


def cached_clips(cfg: DictConfig, session: Session, network: nn.Module, clips: ClipDataset) -> ClipDataset:
    """The frozen backbone's features of the training data instead of its frames, computed once and kept.

    Raises:
        ValueError: a cache for a network without a frozen backbone.
    """
    backbone = frozen_backbone(network)
    if backbone is None or not isinstance(network, SlotNetwork):
        raise ValueError(f"train.cache keeps a frozen backbone's features, but {cfg.method.name} has none")
    key = cache_key(backbone, clips, preprocessing=backbone.precision)
    cache = FeatureCache(cfg.train.cache, key=key)
    if session.world.is_main:
        log.info("features are kept in %s", cache.folder)
        with tqdm(desc="features", unit="clip", leave=False) as bar:

            def show(done: int, rows: int) -> None:
                bar.total, bar.n = rows, done
                bar.refresh()

            cache.build(
                clips,
                lambda frames: network.backbone_features(frames.to(session.device)),
                variants=cfg.train.cache_variants,
                progress=show,
            )
    session.world.gather(None)  # the others wait until the cache is complete
    return CachedFeatures(clips, cache, frames=False)


def finish(cfg: DictConfig, session: Session, network: nn.Module, result: FitResult) -> None:
    """Evaluates the trained network, prints the table, and says where things are and what to type next."""
    log.info(
        "trained %d steps in %.0f s: %.3g clips/s, %.0f%% of the time waiting for data, %.2f GB at most",
        result.steps,
        result.seconds,
        result.clips_per_second,
        100 * result.data_wait_share,
        result.peak_memory_bytes / 1e9,
    )
    checkpoint = session.folder / "last.ckpt"
    if is_scored(cfg):
        done = f"training is done and saved in {checkpoint}"
        try:
            evaluate.score_and_report(cfg, session, network, training=result)
        except (ValueError, OSError) as error:
            raise ValueError(f"{done}, but it cannot be evaluated: {error}") from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{done}; evaluate it with: {again(checkpoint, 'eval')}") from None
        log.info("report      %s", session.folder / "report.json")
    log.info("checkpoint  %s", checkpoint)
    if "segmenter" in cfg.method:
        log.info("next        %s", again(checkpoint, "inspect"))
        log.info("next        %s predict.source=VIDEO", again(checkpoint, "predict"))


def train_first_stage(cfg: DictConfig, session: Session) -> None:
    """Trains the recipe that this one builds on, and hands its checkpoint to the method's network.

    The recipe's own settings hold for it, with this run's seed, device and threads; it writes to a folder of
    its own inside this run's.
    """
    overrides = ["mode=train", f"hparam={cfg.first_stage}", f"seed={cfg.seed}", f"device={cfg.device}"]
    overrides += [f"threads={cfg.threads or 'null'}", f"verbose={cfg.verbose}"]
    stage = hydra.compose("main", overrides=overrides)
    log.info("first stage: %s", cfg.first_stage)
    inner = start(stage, folder=session.folder / str(cfg.first_stage), world=session.world)
    network = network_of(stage, inner)
    fit(stage, inner, network, data_of(stage, "train"))
    with open_dict(cfg):
        cfg.method.network.features = str(inner.folder / "last.ckpt")
    session.config["method"]["network"]["features"] = cfg.method.network.features
    start(cfg, folder=session.folder, world=session.world)
