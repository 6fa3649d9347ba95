"""MOVi comes out of TFRecords as it went in, whoever reads it; damage and wrong folders are explained."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.movi_records import OBJECTS, make_scene, png, write_movi
from tests.data.records import example, write_records
from vosssl.data.movi import MoviDataset
from vosssl.data.movi_video import MoviVideo
from vosssl.data.sampling import ClipLoader, Draw
from vosssl.data.tfrecord import TFRecordFile, scan_records

SHARD = "movi_e/16x16/1.0.0/movi_e-train.tfrecord-00001-of-00002"


def one_video(path: Path, features: dict, *, flow: bool = False) -> MoviVideo:
    file = TFRecordFile(write_records(path, [example(features)]))
    return MoviVideo(file, 0, name="x", native_size=(16, 16), length=5, flow=flow)


def test_frames_and_labels_come_back_as_written(tmp_path: Path) -> None:
    scenes = write_movi(tmp_path)
    videos = MoviDataset(tmp_path, variant="movi_e").videos()
    assert [video.name for video in videos] == ["00000-0000", "00000-0001", "00001-0000", "00001-0001"]
    for video, scene in zip(videos, scenes, strict=True):
        clip = video.clip(range(5))
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), scene.video)
        assert clip.labels is not None
        assert np.array_equal(clip.labels.numpy(), scene.segmentations)
        assert clip.labelled is not None and bool(clip.labelled.all())
        assert clip.flow is None
        streamed = list(video)
        assert all(torch.equal(frame.image, clip.frames[t]) for t, frame in enumerate(streamed))
        assert [frame.name for frame in streamed] == ["00000", "00001", "00002", "00003", "00004"]
    assert isinstance(videos[3], MoviVideo)
    assert videos[3].scene == "4003"
    assert torch.equal(videos[3].read_labels(2), torch.from_numpy(scenes[3].segmentations[2]))


@pytest.mark.parametrize("variant", ["movi_a", "movi_b", "movi_c", "movi_d", "movi_e", "movi_f"])
def test_every_variant_is_found_from_any_folder_of_the_release(tmp_path: Path, variant: str) -> None:
    write_movi(tmp_path, variant=variant, shards=1)
    for below in ("", variant, f"{variant}/16x16", f"{variant}/16x16/1.0.0"):
        assert len(MoviDataset(tmp_path / below, variant=variant, split="validation")) == 2


def test_frames_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    scene = write_movi(tmp_path)[0]
    video = MoviDataset(tmp_path, variant="movi_e").videos()[0]
    clip = video.clip([3, 0, -1])
    assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), scene.video[[3, 0, 4]])


def test_flow_is_x_and_y_in_pixels(tmp_path: Path) -> None:
    scene = make_scene(1)
    stored = np.zeros((5, 16, 16, 2), np.int64)
    stored[..., 0] = 65535  # rows: the largest
    stored[2, 4, 7, 1] = 13107  # columns: a fifth of the way from -10 to 6.25
    video = one_video(tmp_path / "a", {**scene.features, "forward_flow": stored}, flow=True)
    flow = video.clip([2, 0]).flow
    assert flow is not None
    assert flow.shape == (2, 2, 16, 16)
    assert torch.allclose(flow[:, 1], torch.tensor(6.25))
    assert torch.allclose(flow[0, 0, 4, 7], torch.tensor(-10 + 16.25 / 5))
    assert torch.allclose(flow[1, 0], torch.tensor(-10.0))
    half = video.clip([2], size=(8, 8)).flow  # vectors shrink with the picture
    assert half is not None
    assert torch.allclose(half[0, 1], torch.tensor(3.125))


def test_random_flow_depth_and_normals_come_back_as_written(tmp_path: Path) -> None:
    scene = make_scene(2)
    video = one_video(tmp_path / "a", scene.features)
    for stored, flow, low, high in (
        (scene.forward_flow, video.flow([4, 1]), -10, 6.25),
        (scene.backward_flow, video.flow([4, 1], backward=True), -3.5, 8),
    ):
        expected = stored[[4, 1]].astype(np.float64) / 65535 * (high - low) + low
        assert np.allclose(flow.permute(0, 2, 3, 1).numpy(), expected[..., ::-1], atol=1e-5)
    again = video.flow([1])  # now read alone, from the remembered place
    assert torch.equal(again[0], video.flow()[1])
    assert np.allclose(video.depth().numpy(), scene.depth / 65535 * 28.5 + 2, atol=1e-5)
    assert np.allclose(video.normals([3])[0].permute(1, 2, 0), scene.normal[3] / 65535 * 2 - 1, atol=1e-6)
    total = (video.normals() + 1) / 2 + video.object_coordinates()
    assert torch.allclose(total, torch.tensor(1.0))


def test_boxes_and_visibility_are_by_object_and_frame(tmp_path: Path) -> None:
    scene = make_scene(3)
    instances = one_video(tmp_path / "a", scene.features).instances()
    assert instances.boxes.shape == (OBJECTS, 5, 4)
    assert np.array_equal(instances.visibility.numpy(), scene.visibility)
    for number in range(OBJECTS):
        seen = ~instances.boxes[number, :, 0].isnan()
        assert seen.nonzero().flatten().tolist() == scene.box_frames[number]
        assert instances.boxes[number, seen].tolist() == scene.boxes[number]
    top, left, bottom, right = (instances.boxes[0, 2] * 16).int().tolist()
    inside = np.zeros((16, 16), bool)
    inside[top:bottom, left:right] = True
    assert np.array_equal(scene.segmentations[2] == 1, inside & (scene.segmentations[2] != 2))


def test_a_changed_byte_is_reported_with_shard_and_record(tmp_path: Path) -> None:
    write_movi(tmp_path)
    path = tmp_path / SHARD
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    videos = MoviDataset(tmp_path, variant="movi_e").videos()
    videos[2].clip([0])
    with pytest.raises(ValueError, match=r"record 1 of .*movi_e-train\.tfrecord-00001-of-00002.*check value"):
        videos[3].clip([0])
    assert len(MoviDataset(tmp_path, variant="movi_e", verify="none").videos()[3].clip([0])) == 1


def test_a_shard_that_was_cut_off_is_found_before_training(tmp_path: Path) -> None:
    write_movi(tmp_path)
    path = tmp_path / SHARD
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"record 1 of .*00001-of-00002.*truncated"):
        MoviDataset(tmp_path, variant="movi_e")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": None}, "holds no feature video"),
        (
            {"segmentations": None},
            r"holds no feature segmentations, expected a record of MOVi; it has backgr",
        ),
        (
            {"segmentations": [png(np.zeros((16, 16), np.uint8))] * 4},
            "segmentations has 4 frames, expected 5",
        ),
        ({"segmentations": [b"no image"] * 5}, "frame 1 of segmentations .* is truncated or damaged"),
        (
            {"segmentations": [png(np.zeros((8, 8), np.uint8))] * 5},
            r"segmentations is \(1, 8, 8\) uint8, expected \(1, 16, 16\)",
        ),
        ({"video": np.arange(5)}, "feature video holds int64 values, expected bytes"),
        ({"forward_flow": np.zeros(5 * 512 - 1, np.int64)}, "forward_flow does not hold whole frames"),
        ({"forward_flow": np.zeros(4 * 512, np.int64)}, "forward_flow has 4 frames, expected 5"),
        ({"forward_flow": [png(np.zeros((16, 16), np.uint8))] * 5}, "holds bytes values, expected int64"),
        ({"metadata/forward_flow_range": np.zeros(1, np.float32)}, "forward_flow_range holds 1 numbers"),
    ],
)
def test_a_wrong_field_is_named_with_its_record(tmp_path: Path, changes: dict, message: str) -> None:
    features = {**make_scene(4).features, **changes}
    video = one_video(tmp_path / "shard", {k: v for k, v in features.items() if v is not None}, flow=True)
    with pytest.raises(ValueError, match=rf"record 0 of .*shard \(byte \d+\): .*{message}"):
        video.clip([1])


def test_boxes_that_do_not_fit_their_objects_are_refused(tmp_path: Path) -> None:
    features = {**make_scene(4).features, "instances/bbox_frames/ragged_flat_values": np.array([0, 77])}
    with pytest.raises(ValueError, match="do not fit"):
        one_video(tmp_path / "a", features).instances()


def test_wrong_folders_are_explained(tmp_path: Path) -> None:
    root = tmp_path / "tfds"
    write_movi(root)
    with pytest.raises(FileNotFoundError, match=r"movi_e-test.*found movi_e-train, movi_e-validation"):
        MoviDataset(root, variant="movi_e", split="test")
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        MoviDataset(tmp_path / "absent", variant="movi_e")
    with pytest.raises(ValueError, match=r"pass data\.root=FOLDER"):
        MoviDataset(None, variant="movi_e")
    write_movi(root, size=(32, 32))
    with pytest.raises(ValueError, match=r"pass data\.resolution=128 or so"):
        MoviDataset(root, variant="movi_e")
    assert MoviDataset(root, variant="movi_e", resolution=32).videos()[0].size == (32, 32)
    (root / SHARD).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 shards"):
        MoviDataset(root, variant="movi_e", resolution=16)
    assert len(MoviDataset(root, variant="movi_e", resolution=16, allow_missing=True)) == 2


def test_a_clip_is_a_function_of_its_draw_whoever_reads_it(tmp_path: Path) -> None:
    write_movi(tmp_path)
    dataset = MoviDataset(tmp_path, variant="movi_e", num_frames=2, clips_per_video=2, flow=True)
    drawn = dataset[Draw(5, 9)]
    copy = pickle.loads(pickle.dumps(dataset))[Draw(5, 9)]
    assert torch.equal(drawn.frames, copy.frames) and drawn.frame_names == copy.frame_names
    read = []
    for workers in (0, 1, 2):
        batches = ClipLoader(dataset, batch_size=4, seed=3, workers=workers).batches()
        read.append([next(batches) for _ in range(3)])
    for batches in read[1:]:
        for first, second in zip(read[0], batches, strict=True):
            assert first.names == second.names
            for key in ("frames", "labels", "flow"):
                assert torch.equal(getattr(first, key), getattr(second, key))


def test_only_the_bytes_of_the_frames_are_read_once_a_record_is_known(tmp_path: Path) -> None:
    write_movi(tmp_path)
    video = MoviDataset(tmp_path, variant="movi_e").videos()[0]
    assert isinstance(video, MoviVideo)
    before = video.clip([2])
    offset, length = map(int, scan_records(video.file.path)[0])
    with video.file.visit(0) as payload:
        video._image(payload, "video", 2)
    starts = {name: spans[2] for name, spans in video._frames.items()}
    content = bytearray(b"\x01") * video.file.path.stat().st_size  # everything but frame 2 is destroyed
    whole = video.file.path.read_bytes()
    for start, stop in starts.values():
        content[offset + start : offset + stop] = whole[offset + start : offset + stop]
    video.file.path.write_bytes(content)
    assert torch.equal(video.clip([2]).frames, before.frames)
    assert length > 0


def test_the_fingerprint_follows_the_shards(tmp_path: Path) -> None:
    write_movi(tmp_path)
    before = MoviDataset(tmp_path, variant="movi_e").fingerprint()
    assert MoviDataset(tmp_path, variant="movi_e").fingerprint() == before
    path = tmp_path / SHARD
    path.write_bytes(path.read_bytes() + path.read_bytes())
    assert MoviDataset(tmp_path, variant="movi_e").fingerprint() != before
