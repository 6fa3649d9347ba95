"""The yamls of MOVi and of tar shards train and evaluate on miniatures of what they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.data.movi_records import write_movi
from tests.data.test_configs import CFG, composed
from tests.data.test_shards import npy, sample, write_shards, write_tar
from vosssl.data.sampling import ClipLoader

MOVI = [f"movi_{letter}" for letter in "abcdef"]


def lay_out(name: str, root: Path) -> dict[str, Any]:
    """The miniature, and what the yaml has to be told about it."""
    if name in MOVI:
        write_movi(root, variant=name)
        return {}
    if name == "movi_e_shards":
        write_shards(root, keys=("video",))
        write_shards(root, split="validation")
        prefix = "movi_e"
    else:
        prefix = name.removesuffix("_shards").removesuffix("2021")
        for split, keys in (("train", ["video"]), ("validation", ["video", "segmentations"])):
            for shard in range(2):
                made = sample(shard)
                made["segmentations"] = np.repeat(made["segmentations"], 3, axis=3)
                write_tar(
                    root / f"{prefix}-{split}-{shard:06d}.tar",
                    {f"{shard}.{key}.npy": npy(made[key]) for key in keys},
                )
    return {
        f"{part}_shards": f"{prefix}-{split}-{{000000..000001}}.tar"
        for part, split in (("train", "train"), ("val", "validation"))
    }


@pytest.mark.parametrize("name", [*MOVI, "movi_c_shards", "movi_e_shards", "ytvis2021_shards"])
def test_the_yaml_trains_and_evaluates_on_its_layout(tmp_path: Path, name: str) -> None:
    node = composed(name, tmp_path, size=32, **lay_out(name, tmp_path))
    batch = next(ClipLoader(instantiate(node.train, _convert_="all"), batch_size=2).batches())
    assert batch.frames.shape == (2, 4, 3, 32, 32)
    assert batch.labels is None
    videos = instantiate(node.val, _convert_="all").videos()
    assert len(videos) >= 2
    assert all(next(iter(video)).labels is not None for video in videos)


@pytest.mark.parametrize("name", [*MOVI, "movi_c_shards", "movi_e_shards", "ytvis2021_shards"])
def test_a_missing_root_is_asked_for(name: str) -> None:
    with pytest.raises(Exception, match=r"pass data\.root=FOLDER"):
        instantiate(composed(name, None).train, _convert_="all")


@pytest.mark.parametrize(
    "recipe", [path.stem for path in sorted((CFG.parent / "hparam").glob("*movi*.yaml"))]
)
def test_every_recipe_on_movi_reads_its_batches(tmp_path: Path, recipe: str) -> None:
    with initialize_config_dir(str(CFG.parent), version_base=None):
        config = compose("main", [f"hparam={recipe}", f"data.root={tmp_path}", "data.size=32"])
    write_movi(tmp_path, variant=config.data.name, shards=1, frames=8)
    batch = next(ClipLoader(instantiate(config.data.train, _convert_="all"), batch_size=2).batches())
    assert batch.frames.shape == (2, config.data.frames, 3, 32, 32)
    assert (batch.labels is not None) == (recipe == "savi_movi_c")
