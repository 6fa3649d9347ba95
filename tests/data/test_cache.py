"""Cached features equal computed ones, survive a kill, and notice damage."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vosssl.clip import Clip
from vosssl.data.cache import CachedFeatures, FeatureCache, cache_key
from vosssl.data.sampling import ClipLoader, Draw, as_draw, mixed_seed

SHAPE = (2, 3, 4, 4)  # (T, 3, H, W)


class Clips:
    """Five random clips; the seed changes them."""

    def __init__(self, length: int = 5, *, salt: int = 0) -> None:
        self.length = length
        self.salt = salt

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw | int) -> Clip:
        index, seed, _ = as_draw(draw)
        generator = torch.Generator().manual_seed(mixed_seed(self.salt, index, seed))
        return Clip(f"clip{index}", torch.randint(0, 256, SHAPE, generator=generator, dtype=torch.uint8))


class Encoder:
    """Counts its calls; dies after some."""

    def __init__(self, *, calls: int = 1000) -> None:
        self.calls = calls

    def __call__(self, frames: Tensor) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled()
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        pixels = frames.float().flatten(3) / 255  # (B, T, 3, H*W)
        return {"features": pixels.transpose(2, 3), "mean": pixels.mean(3)}


def built(folder: Path, *, key: str = "a", variants: int = 1, batch_size: int = 2) -> FeatureCache:
    cache = FeatureCache(folder, key=key)
    cache.build(Clips(), Encoder(), variants=variants, batch_size=batch_size)
    return cache


def test_cached_features_are_the_computed_ones_in_half_precision(tmp_path: Path) -> None:
    dataset = CachedFeatures(Clips(), built(tmp_path))
    for index in range(5):
        clip = dataset[index]
        assert clip.name == f"clip{index}"
        assert clip.features["features"].dtype == torch.float16
        with torch.no_grad():
            expected = Encoder()(clip.frames[None])
        for name, value in expected.items():
            assert torch.equal(clip.features[name], value[0].half())


def test_the_loader_stacks_features_and_workers_change_nothing(tmp_path: Path) -> None:
    dataset = CachedFeatures(Clips(), built(tmp_path))
    batches = [next(ClipLoader(dataset, batch_size=4, workers=workers).batches()) for workers in (0, 1)]
    for batch in batches:
        assert batch.features["features"].shape == (4, 2, 16, 3)
        assert torch.equal(batch.features["features"], batches[0].features["features"])


def test_variants_are_draws_of_their_own(tmp_path: Path) -> None:
    dataset = CachedFeatures(Clips(), built(tmp_path, variants=3))
    assert (len(dataset), dataset.variants) == (5, 3)
    means = [dataset[Draw(2, seed)].features["mean"] for seed in range(6)]
    assert torch.equal(means[0], means[3])
    assert not torch.equal(means[0], means[1])
    shown = dataset[Draw(2, 4)]
    assert torch.equal(shown.frames, Clips()[Draw(2, 1)].frames)


def test_frames_need_not_be_read(tmp_path: Path) -> None:
    class Unreadable(Clips):
        def __getitem__(self, draw: Draw | int) -> Clip:
            raise AssertionError("frames were read")

    clip = CachedFeatures(Unreadable(), built(tmp_path), frames=False)[3]
    assert tuple(clip.frames.shape) == SHAPE
    assert torch.equal(clip.features["mean"], CachedFeatures(Clips(), built(tmp_path))[3].features["mean"])


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, key="a")
    with pytest.raises(KeyboardInterrupt):
        cache.build(Clips(), Encoder(calls=2), batch_size=2)
    resumed = FeatureCache(tmp_path, key="a")
    assert resumed.missing() == [4]
    with pytest.raises(ValueError, match="lacks 1 of 5 rows"):
        CachedFeatures(Clips(), resumed)
    with pytest.raises(ValueError, match=r"row 4 .* is not written yet"):
        resumed.read(4)
    seen: list[tuple[int, int]] = []
    resumed.build(
        Clips(), Encoder(calls=1), batch_size=2, progress=lambda done, rows: seen.append((done, rows))
    )
    assert seen == [(5, 5)]
    whole = built(tmp_path, key="b")
    for row in range(5):
        assert torch.equal(resumed.read(row)["features"], whole.read(row)["features"])


def test_building_twice_encodes_nothing(tmp_path: Path) -> None:
    built(tmp_path).build(Clips(), Encoder(calls=0))


def test_damage_is_noticed_and_can_be_repaired(tmp_path: Path) -> None:
    cache = built(tmp_path)
    with open(cache.folder / "features.bin", "r+b") as file:
        file.seek(3 * cache.header.row_bytes("features") + 7)
        file.write(b"\x55")
    again = FeatureCache(tmp_path, key="a")
    again.read(2)
    with pytest.raises(ValueError, match="row 3 of features does not match its checksum"):
        again.read(3)
    assert again.repair() == 1
    assert again.missing() == [3]
    again.build(Clips(), Encoder(calls=1))
    assert torch.equal(again.read(3)["mean"], built(tmp_path, key="b").read(3)["mean"])


@pytest.mark.parametrize("name", ["features.bin", "records.bin"])
def test_a_file_cut_off_is_noticed(tmp_path: Path, name: str) -> None:
    cache = built(tmp_path)
    with open(cache.folder / name, "r+b") as file:
        file.truncate(40)
    with pytest.raises(ValueError, match=rf"is damaged: {name} has 40 bytes"):
        CachedFeatures(Clips(), FeatureCache(tmp_path, key="a"))[0]


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    cache = built(tmp_path)
    (cache.folder / "header.json").write_text("{}")
    with pytest.raises(ValueError, match=r"header .*header\.json is damaged"):
        FeatureCache(tmp_path, key="a").missing()
    with pytest.raises(ValueError, match="no feature cache in"):
        FeatureCache(tmp_path, key="other").missing()


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1000, 900, 100))
    cache = FeatureCache(tmp_path, key="a")
    with pytest.raises(OSError, match=r"the feature cache of 5 clips needs .* GB are free"):
        cache.build(Clips(), Encoder())
    assert not cache.folder.exists()


def test_a_cache_of_another_dataset_does_not_fit(tmp_path: Path) -> None:
    cache = built(tmp_path)
    with pytest.raises(ValueError, match=r"has 5 rows, the dataset 7 \(7 clips x 1 variants\)"):
        cache.build(Clips(7), Encoder())
    with pytest.raises(ValueError, match="expected the same number or a multiple"):
        CachedFeatures(Clips(3), cache)


def test_values_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    def encode(frames: Tensor) -> dict[str, Tensor]:
        return {"features": frames.float().flatten(2) * 1e4}

    with pytest.raises(ValueError, match="is not finite as float16; use dtype=bfloat16"):
        FeatureCache(tmp_path, key="a").build(Clips(), encode)
    FeatureCache(tmp_path, key="a", dtype="bfloat16").build(Clips(), encode)


def test_the_key_depends_on_weights_data_and_preprocessing() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 3)
    keys = [cache_key(network, Clips()), cache_key(network, Clips(), preprocessing="bf16")]
    keys += [cache_key(network, Clips(6)), cache_key(network, Clips(salt=1))]
    assert cache_key(network, Clips()) == keys[0]
    with torch.no_grad():
        network.weight[0, 0] += 1e-6
    assert len({*keys, cache_key(network, Clips())}) == 5
