"""mode=benchmark: entries, resumability, and whole runs on generated clips and on files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from vosssl.clip import Frame
from vosssl.data.io import read_labels, write_image, write_labels
from vosssl.data.video import Video
from vosssl.engine.benchmark_table import with_published
from vosssl.engine.checkpoint import FORMAT
from vosssl.engine.distributed import World
from vosssl.engine.evaluator import follow
from vosssl.engine.protocol import DISCOVERY, LOCK_ON, load_protocol
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.modes.benchmark import compared, segmented
from vosssl.modes.benchmark_data import Dataset
from vosssl.modes.build import create_model, method_config
from vosssl.modes.contenders import check_names, contender, open_contender
from vosssl.modes.session import Session

CPU = torch.device("cpu")
FLOORS = ("copy-first-mask", "floor-one", "floor-grid", "floor-kmeans")


def session(folder: Path) -> Session:
    return Session({"seed": 0, "benchmark": {"workers": 1}}, folder, World(device=CPU))


def clips(*, count: int = 3, frames: int | None = None) -> Dataset:
    node = {"_target_": "vosssl.data.synthetic.SyntheticClips", "split": "val", "size": 32, "frames": 4}
    return Dataset(
        "clips", node | {"count": count}, {"lock_on": LOCK_ON, "discovery": DISCOVERY}, frames=frames
    )


def footage(root: Path) -> Dataset:
    """Two sequences on disk with 0 / 255 truth: a square that moves right."""
    for name in ("one", "two"):
        for time in range(4):
            truth = torch.zeros(24, 32, dtype=torch.uint8)
            truth[6:16, 4 + 2 * time : 14 + 2 * time] = 255
            write_image(root / "JPEGImages" / name / f"{time:05d}.png", truth.expand(3, -1, -1))
            write_labels(root / "Annotations" / name / f"{time:05d}.png", truth)
    node = {"_target_": "vosssl.data.folders.FolderDataset", "root": str(root), "binary": True}
    protocols = {"lock_on": load_protocol("davis16-val"), "discovery": DISCOVERY}
    return Dataset("davis16", node, protocols)


def test_an_entry_is_a_model_a_checkpoint_or_a_folder(tmp_path: Path) -> None:
    assert contender("floor-grid", is_floor=True).is_floor
    folder = contender({"predictions": str(tmp_path), "tasks": "lock_on", "name": "them"})
    assert (folder.name, folder.tasks, folder.method) == ("them", ("lock_on",), None)
    model = contender({"method": "slots-synthetic", "supervision": "none", "options": {"size": 32}})
    assert model.is_untrained and model.supervision == "none"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("floor-gird", "did you mean floor-grid"),
        ("motion-features", "gives features, not masks"),
        ({"methd": "floor-grid"}, "did you mean method"),
        ({"name": "nothing"}, "names no method"),
        ({"method": "floor-grid", "tasks": ["lockon"]}, "expected any of lock_on, discovery"),
        ({"predictions": "{tmp}"}, "do not say what they were given"),
        ({"predictions": "{tmp}", "method": "floor-grid"}, "it can be only one"),
        ({"predictions": "{tmp}/nowhere", "tasks": ["lock_on"]}, "no folder of predictions"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, message: str, tmp_path: Path) -> None:
    if not isinstance(entry, str):
        entry = {key: v.format(tmp=tmp_path) if isinstance(v, str) else v for key, v in entry.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        contender(entry)


def test_two_entries_of_one_name_would_share_predictions() -> None:
    with pytest.raises(ValueError, match="two benchmark entries are called 'floor-grid'"):
        check_names([contender("floor-grid"), contender("floor-grid")])
    with pytest.raises(ValueError, match="has to be a folder's name"):
        check_names([contender({"method": "floor-grid", "name": "../up"})])


def test_a_checkpoint_brings_its_method_and_its_training_data(tmp_path: Path) -> None:
    method = OmegaConf.to_container(method_config("slots-synthetic"), resolve=True)
    config = {"method": method, "data": {"name": "synthetic"}}
    weights = create_model("slots-synthetic").state_dict()
    torch.save({"format": FORMAT, "config": config, "network": weights, "step": 1}, tmp_path / "last.ckpt")
    entry = contender(str(tmp_path / "last.ckpt"))
    assert (entry.name, entry.training_data, entry.trusted_only) == ("slots-synthetic", "synthetic", True)
    opened = open_contender(entry, CPU)
    assert opened.parameters == sum(value.numel() for value in opened.segmenter.network.parameters())  # type: ignore[attr-defined]
    assert opened.can("lock_on") and opened.can("discovery")


def test_floors_on_generated_clips_give_a_block_for_each_task(tmp_path: Path) -> None:
    floors = [contender(name, is_floor=True) for name in FLOORS]
    blocks = compared(floors, [clips(count=2)], ["lock_on", "discovery"], session(tmp_path))
    assert [(block.task, [row.name for row in block.rows]) for block in blocks] == [
        ("lock_on", ["copy-first-mask"]),
        ("discovery", ["floor-one", "floor-grid", "floor-kmeans"]),
    ]
    assert all(row.frames_per_second for block in blocks for row in block.rows)
    one = blocks[1].rows[0]
    assert one.means["video/fg_ari"] == 0 and set(one.sequences) == set(one.objects)
    text = with_published(blocks, []).text()
    assert "clips, lock-on, protocol lock-on, 2 videos" in text


def test_a_run_that_was_killed_goes_on_with_the_next_video(tmp_path: Path) -> None:
    made: list[str] = []
    copy = follow(CopyFirstMask(), prompt_first=True)

    def killed_at(last: int | None):
        def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
            for place, item in enumerate(copy(video)):
                if len(made) == last and place == 2:
                    raise KeyboardInterrupt
                yield item
            made.append(video.name)

        return label

    videos, run = clips().videos, session(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        segmented(killed_at(1), videos, tmp_path / "labels", run, where="test")
    first = made.copy()
    assert len(first) == 1
    stamp = (tmp_path / "labels" / first[0] / "00000.png").stat().st_mtime_ns
    facts = segmented(killed_at(None), videos, tmp_path / "labels", run, where="test")
    assert made == [video.name for video in videos], "each video once"
    assert (tmp_path / "labels" / first[0] / "00000.png").stat().st_mtime_ns == stamp
    beside = [json.loads(path.read_text()) for path in (tmp_path / "labels").glob("*.json")]
    assert [fact["frames"] for fact in beside] == [4, 4, 4]
    assert facts["frames_per_second"] == pytest.approx(12 / sum(fact["seconds"] for fact in beside))
    again = segmented(killed_at(0), videos, tmp_path / "labels", run, where="test")
    assert again == facts, "nothing is left to do, and the speed is still known"


def test_a_rerun_gives_the_same_table_and_other_settings_are_refused(tmp_path: Path) -> None:
    floor = [contender("floor-kmeans")]
    first = compared(floor, [clips()], ["discovery"], session(tmp_path))
    again = compared(floor, [clips()], ["discovery"], session(tmp_path))
    assert with_published(first, []).text() == with_published(again, []).text()
    other = [contender({"method": "floor-kmeans", "options": {"clusters": 3}})]
    with pytest.raises(ValueError, match="predictions of another contender"):
        compared(other, [clips()], ["discovery"], session(tmp_path))
    with pytest.raises(ValueError, match="predictions of another frames"):
        compared(floor, [clips(frames=2)], ["discovery"], session(tmp_path))


def test_foreign_predictions_stand_beside_what_was_run(tmp_path: Path) -> None:
    dataset = footage(tmp_path / "set")
    (tmp_path / "them").mkdir()
    for path in (tmp_path / "set/Annotations").glob("*/*.png"):
        labels = read_labels(path, binary=True)
        write_labels(tmp_path / "them" / path.parent.name / path.name, labels)
    them = contender({"predictions": str(tmp_path / "them"), "tasks": ["lock_on"], "name": "truth"})
    blocks = compared(
        [contender("copy-first-mask", is_floor=True), them], [dataset], ["lock_on"], session(tmp_path / "run")
    )
    floor, perfect = blocks[0].rows
    assert perfect.means["J&F"] == 1.0 and 0 < floor.means["J&F"] < 1
    assert perfect.frames_per_second is None
    assert blocks[0].extent == "2 of 20 videos"
    (tmp_path / "them/two/00002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"truth on davis16, lock-on: .*two"):
        compared([them], [dataset], ["lock_on"], session(tmp_path / "run"))


def test_one_object_a_video_is_said_to_make_fg_ari_meaningless(tmp_path: Path) -> None:
    (block,) = compared(
        [contender("floor-one")], [footage(tmp_path / "set")], ["discovery"], session(tmp_path / "run")
    )
    assert any("one object a video" in note for note in block.notes)
    assert block.rows[0].means["video/fg_ari"] == 1.0


def test_untrained_weights_are_a_footnote(tmp_path: Path) -> None:
    entry = contender({"method": "slots-synthetic", "options": {"size": 32}})
    (block,) = compared([entry], [clips(count=1, frames=3)], ["lock_on"], session(tmp_path))
    assert any("untrained" in note for note in block.rows[0].notes)
    assert block.rows[0].parameters


def test_without_a_word_the_floors_are_run_on_generated_clips_and_own_yaml_files_take_part(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine/method").mkdir(parents=True)
    (tmp_path / "mine/data").mkdir()
    (tmp_path / "mine/method/blocks.yaml").write_text(
        "name: blocks\nsegmenter:\n  _target_: vosssl.methods.floors.GridSegmenter\n  rows: 4\n  columns: 4\n"
    )
    (tmp_path / "mine/data/tiny.yaml").write_text(
        "name: tiny\nroot: null\nval:\n  _target_: vosssl.data.synthetic.SyntheticClips\n"
        "  split: val\n  size: 24\n  frames: 3\n  count: 2\n"
    )
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "vosssl",
                "--config-dir",
                "mine",
                "mode=benchmark",
                "threads=1",
                "device=cpu",
            ),
            *("benchmark.limit=1", "benchmark.folder=run", "benchmark.entries=[blocks]"),
            "benchmark.datasets=[synthetic,{data: tiny, limit: 2}]",
        ],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for words in ("synthetic, lock-on", "tiny, discovery, protocol discovery, 2 videos", "copy-first-mask"):
        assert words in done.stderr
    blocks = json.loads((tmp_path / "run/report.json").read_text())["blocks"]
    assert [[row["method"] for row in block["rows"]] for block in blocks] == 2 * [
        ["copy-first-mask"],
        ["floor-one", "floor-grid", "floor-kmeans", "blocks"],
    ]
    assert {"table.md", "table.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("benchmark.datasets=[davis61]", "there is no data=davis61; did you mean davis1"),
        ("benchmark.datasets=[{data: davis16, root: nowhere}]", "no dataset at nowhere"),
    ],
)
def test_a_wrong_benchmark_is_one_line_and_makes_no_folder(
    argument: str, message: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vosssl", "mode=benchmark", argument],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"vosssl: {message}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
