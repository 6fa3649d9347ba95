"""Tar shards of arrays are read in place, as webdataset wrote them; damage and tricks are refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vosssl.data.sampling import ClipLoader, Draw
from vosssl.data.shards import ShardDataset, ShardVideo
from vosssl.data.tar_index import expand_braces, index_tar

PATTERN = "movi_e-train-{000000..000001}.tar"


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=allow_pickle)
    return written.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return path


def sample(seed: int, *, frames: int = 6, size: tuple[int, int] = (8, 10)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "video": generator.integers(0, 256, (frames, *size, 3), dtype=np.uint8),
        "segmentations": generator.integers(0, 4, (frames, *size, 1), dtype=np.uint8),
        "forward_flow": generator.integers(0, 65536, (frames, *size, 2)).astype(np.float32),
    }


def write_shards(
    root: Path,
    *,
    split: str = "train",
    keys: tuple[str, ...] = ("video", "segmentations", "forward_flow"),
    shards: int = 2,
    samples: int = 2,
) -> list[dict[str, np.ndarray]]:
    """Shards as VideoSAUR's save_movi.py writes them; returns the samples in order."""
    made = [sample(seed) for seed in range(shards * samples)]
    for shard in range(shards):
        members = {
            f"{number}.{key}.npy": npy(made[number][key])
            for number in range(shard * samples, (shard + 1) * samples)
            for key in keys
        }
        write_tar(root / f"movi_e-{split}-{shard:06d}.tar", members)
    return made


def test_frames_and_labels_come_back_as_written(tmp_path: Path) -> None:
    made = write_shards(tmp_path)
    videos = ShardDataset(tmp_path, shards=PATTERN).videos()
    assert [video.name for video in videos] == [f"movi_e-train-{n // 2:06d}-{n}" for n in range(4)]
    for video, truth in zip(videos, made, strict=True):
        clip = video.clip([4, 0, -1])
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), truth["video"][[4, 0, 5]])
        assert clip.labels is not None
        assert np.array_equal(clip.labels.numpy(), truth["segmentations"][[4, 0, 5], ..., 0])
        assert torch.equal(video.read_labels(4), clip.labels[0])
        assert isinstance(video, ShardVideo)
        raw = video.raw_flow([4, 0])
        assert raw is not None
        assert np.array_equal(raw.numpy(), truth["forward_flow"][[4, 0]])


def test_training_shards_hold_only_videos(tmp_path: Path) -> None:
    write_shards(tmp_path, keys=("video",))
    dataset = ShardDataset(tmp_path, shards="movi_e-train-*.tar", labels=False, num_frames=3)
    assert dataset[0].labels is None
    with pytest.raises(ValueError, match=r"0\.video\.npy in .*000000\.tar: has no segmentations\.npy"):
        ShardDataset(tmp_path, shards=PATTERN)


def test_masks_of_objects_become_ids_and_the_later_lies_above(tmp_path: Path) -> None:
    video = np.zeros((2, 4, 5, 3), np.uint8)
    masks = np.zeros((2, 4, 5, 3), np.uint8)
    masks[:, 0:3, :, 0] = 26  # categories of YouTube-VIS
    masks[:, 2:4, 0:2, 2] = 7
    masks[1, ..., 0] = 0
    write_tar(tmp_path / "a-0.tar", {"x.video.npy": npy(video), "x.segmentations.npy": npy(masks)})
    labels = ShardDataset(tmp_path, shards="a-0.tar").videos()[0].clip([0, 1]).labels
    assert labels is not None
    assert labels[0].tolist() == [[1] * 5, [1] * 5, [3, 3, 1, 1, 1], [3, 3, 0, 0, 0]]
    assert labels[1].unique().tolist() == [0, 3]


def test_braces_count_with_their_zeros() -> None:
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{1..2}/{3..4}") == ["1/3", "1/4", "2/3", "2/4"]
    assert len(expand_braces("movi_e-train-{000000..000304}.tar")) == 305
    with pytest.raises(ValueError, match="count from 5 to 3"):
        expand_braces("a-{5..3}.tar")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    pattern = "movi_e-train-{000000..000003}.tar"
    with pytest.raises(FileNotFoundError, match=r"2 of 4 shards .*such as movi_e-train-000002\.tar"):
        ShardDataset(tmp_path, shards=pattern)
    assert len(ShardDataset(tmp_path, shards=pattern, allow_missing=True)) == 4
    with pytest.raises(FileNotFoundError, match="no shards other"):
        ShardDataset(tmp_path, shards="other-{0..3}.tar")
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        ShardDataset(tmp_path / "absent", shards=pattern)
    with pytest.raises(ValueError, match=r"pass data\.root=FOLDER"):
        ShardDataset(None, shards=pattern)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.62])
def test_a_shard_that_was_cut_off_is_named(tmp_path: Path, keep: float) -> None:
    write_shards(tmp_path)
    path = tmp_path / "movi_e-train-000001.tar"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"movi_e-train-000001\.tar.*truncated"):
        ShardDataset(tmp_path, shards=PATTERN)


def test_every_cut_through_a_tar_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.video.npy": bytes(700), "1.video.npy": bytes(700)})
    whole = path.read_bytes()
    for length in range(0, 2 * 1536, 256):  # up to the end of the last member
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tar"):
            index_tar(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"<html>quota exceeded</html>" * 100)
    with pytest.raises(ValueError, match="no uncompressed tar"):
        index_tar(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("0.video.npy"), io.BytesIO())
    with pytest.raises(ValueError, match="no uncompressed tar"):
        index_tar(path)


@pytest.mark.parametrize("name", ["../0.video.npy", "/etc/0.video.npy", "a/../../0.video.npy"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads outside"):
        index_tar(write_tar(tmp_path / "a.tar", {name: b""}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    item = tarfile.TarInfo("0.video.npy")
    item.type, item.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(item)
    with pytest.raises(ValueError, match="no regular file"):
        index_tar(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array([{"a": 1}]), allow_pickle=True), "holds Python objects"),
        (b"not an array", "is no .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xffshort", "header is cut off"),
        (npy(np.zeros((6, 8, 10, 3), np.uint8))[:-1], "more than its .* bytes hold"),
        (npy(np.asfortranarray(np.zeros((6, 8, 10, 3), np.uint8))), "Fortran order"),
        (npy(np.zeros((6, 8, 10, 3), np.float32)), r"float32, expected \(T, H, W, 3\) uint8"),
        (npy(np.zeros((6, 3, 8, 10), np.uint8)), r"\(6, 3, 8, 10\) uint8, expected \(T, H, W, 3\)"),
        (npy(np.zeros((0, 8, 10, 3), np.uint8)), r"expected \(T, H, W, 3\)"),
        (npy(np.zeros(3, np.uint8)).replace(b"(3,)", b"(3))"), "header is damaged"),
    ],
)
def test_a_video_that_is_none_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_tar(tmp_path / "a.tar", {"0.video.npy": content})
    with pytest.raises(ValueError, match=rf"0\.video\.npy in .*a\.tar: .*{message}"):
        ShardDataset(tmp_path, shards="a.tar", labels=False)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    members = {
        "0.video.npy": npy(np.zeros((6, 8, 10, 3), np.uint8)),
        "0.segmentations.npy": npy(np.zeros((6, 8, 9, 1), np.uint8)),
    }
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"0\.segmentations\.npy in .*\(6, 8, 10\) like its video"):
        ShardDataset(tmp_path, shards="a.tar")
    with pytest.raises(ValueError, match=r"no member <n>\.video\.npy"):
        ShardDataset(tmp_path, shards=str(write_tar(tmp_path / "b.tar", {"0.image.jpg": b"x"}).name))


def test_a_clip_is_a_function_of_its_draw_whoever_reads_it(tmp_path: Path) -> None:
    write_shards(tmp_path)
    dataset = ShardDataset(tmp_path, shards=PATTERN, num_frames=2, stride=[1, 3])
    assert torch.equal(dataset[Draw(1, 5)].frames, dataset[Draw(1, 5)].frames)
    read = []
    for workers in (0, 1, 2):
        batches = ClipLoader(dataset, batch_size=4, seed=3, workers=workers).batches()
        read.append([next(batches) for _ in range(3)])
    for batches in read[1:]:
        for first, second in zip(read[0], batches, strict=True):
            assert torch.equal(first.frames, second.frames)
            assert first.labels is not None and second.labels is not None
            assert torch.equal(first.labels, second.labels)
