"""Multi-crop: shapes, determinism, and where patches of one crop are seen in the other."""

from __future__ import annotations

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.multi_crop import LOCAL, MATCHES, Crop, MultiCrop, patch_matches, recoloured
from vosssl.data.sampling import ClipLoader, Draw, generator_of
from vosssl.data.synthetic import SyntheticClips


class OneClip:
    """A dataset of one clip."""

    def __init__(self, frames: torch.Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return 1

    def __getitem__(self, draw: Draw | int) -> Clip:
        return Clip(name="one", frames=self.frames)


def noise(height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """(3, H, W) uint8 that flow can follow: noise of a few pixels' grain."""
    grain = torch.rand(1, 3, height // 4, width // 4, generator=generator_of(seed)) * 255
    smooth = torch.nn.functional.interpolate(grain, size=(height, width), mode="bicubic")[0]
    return smooth.clamp(0, 255).to(torch.uint8)


def crops(**settings: object) -> MultiCrop:
    clips = SyntheticClips(size=64, frames=3, count=20, flow=False)
    given = {"size": 32, "local_size": 16, "local_crops": 4, "patch_size": 8} | settings
    return MultiCrop(clips, **given)  # type: ignore[arg-type]


def test_a_clip_becomes_two_large_and_some_small_crops() -> None:
    clip = crops()[Draw(3, 7)]
    assert clip.frames.shape == (2, 3, 32, 32)
    assert clip.frames.dtype == torch.uint8
    assert clip.features[LOCAL].shape == (2, 2, 3, 16, 16)
    assert clip.features[MATCHES].shape == (2, 16, 2)
    assert clip.labels is None
    alone = crops(local_crops=0, patch_size=None)[3]
    assert not alone.features


def test_crops_depend_on_the_draw_alone() -> None:
    first, again, other = crops()[Draw(3, 7)], crops()[Draw(3, 7)], crops()[Draw(3, 8)]
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.features[LOCAL], again.features[LOCAL])
    assert torch.equal(first.features[MATCHES].nan_to_num(9), again.features[MATCHES].nan_to_num(9))
    assert not torch.equal(first.frames, other.frames)
    from_start = ClipLoader(crops(), batch_size=2, prefetch=0).batches()
    next(from_start)
    second = next(from_start)
    resumed = next(ClipLoader(crops(), batch_size=2, prefetch=0).batches(1))
    assert torch.equal(second.frames, resumed.frames)
    assert torch.equal(second.features[LOCAL], resumed.features[LOCAL])


def test_a_crop_maps_places_there_and_back() -> None:
    crop = Crop(top=4, left=10, window=(20, 40), size=32, mirrored=True)
    places = torch.tensor([[0.0, 0.0], [32.0, 32.0], [8.0, 16.0]])
    frame = crop.to_frame(places)
    assert torch.allclose(frame[0], torch.tensor([50.0, 4.0]))  # the mirrored left border is the right one
    assert torch.allclose(crop.from_frame(frame), places, atol=1e-5)


def test_a_mirrored_crop_shows_what_its_map_says() -> None:
    frame = torch.zeros(3, 32, 32, dtype=torch.uint8)
    frame[:, 10, 5] = 200
    crop = Crop(top=4, left=2, window=(16, 16), size=16, mirrored=True)
    row, column = (crop.cut(frame)[0] == 200).nonzero()[0].tolist()
    place = crop.to_frame(torch.tensor([[column + 0.5, row + 0.5]]))
    assert torch.allclose(place, torch.tensor([[5.5, 10.5]]))


def test_matches_in_one_frame_follow_from_geometry() -> None:
    frame = noise(64, 64)
    first = Crop(top=0, left=0, window=(32, 32), size=32, mirrored=False)
    second = Crop(top=0, left=8, window=(32, 32), size=32, mirrored=False)
    there, back = patch_matches(torch.stack([frame, frame]), first, second, patch_size=8).unflatten(1, (4, 4))
    assert there[:, 0].isnan().all()  # left of the second crop
    assert torch.allclose(there[2, 1:], torch.tensor([[0.0, 2.0], [1.0, 2.0], [2.0, 2.0]]))
    assert torch.allclose(back[1, 0], torch.tensor([1.0, 1.0]))
    assert back[:, 3].isnan().all()


def test_matches_between_frames_follow_the_motion() -> None:
    scene = noise(128, 144)
    frames = torch.stack([scene[..., 8:136], scene[..., :128]])  # everything moves right by 8 pixels
    whole = Crop(top=0, left=0, window=(128, 128), size=128, mirrored=False)
    there, back = patch_matches(frames, whole, whole, patch_size=8).unflatten(1, (16, 16))
    columns = torch.arange(16.0)
    inner = there[4:12, 4:12, 0]
    assert (inner.isnan().float().mean()) < 0.1
    assert (inner - (columns[4:12] + 1)).nan_to_num().abs().max() < 0.3
    assert (back[4:12, 4:12, 0] - (columns[4:12] - 1)).nan_to_num().abs().max() < 0.3


def test_exact_flow_says_what_estimated_flow_says() -> None:
    settings = {"frames": 4, "count": 4, "size": 96}
    pairs = [
        MultiCrop(
            SyntheticClips(flow=flow, **settings),  # type: ignore[arg-type]
            size=64,
            local_crops=0,
            patch_size=8,
            scale=(0.5, 0.9),
            mirror=0.0,
        )
        for flow in (True, False)
    ]
    exact, estimated = (
        torch.stack([crops[Draw(index, 0)].features[MATCHES] for index in range(4)]) for crops in pairs
    )
    both = ~(exact + estimated).isnan().any(-1)
    assert both.float().mean() > 0.3
    assert (exact - estimated)[both].norm(dim=-1).median() < 0.2
    assert (~exact.isnan()).sum() > (~estimated.isnan()).sum()


def test_exact_flow_is_not_known_where_another_surface_is_met() -> None:
    frames = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    frames[1, :, :, 8:] = 20  # something dark has come in front
    whole = Crop(top=0, left=0, window=(16, 16), size=16, mirrored=False)
    there, back = patch_matches(frames, whole, whole, patch_size=8, flow=torch.zeros(2, 16, 16))
    assert there[:, 0].isnan().tolist() == [False, True, False, True]
    assert back[:, 0].isnan().tolist() == [False, True, False, True]


def test_crops_of_a_region_lie_close_together() -> None:
    frame = torch.zeros(1, 3, 64, 256, dtype=torch.uint8)
    frame[:] = torch.arange(256, dtype=torch.uint8)  # the column is the colour
    dataset = MultiCrop(
        OneClip(frame), size=16, local_crops=0, region=64, colour=0.0, mirror=0.0, scale=(0.3, 1.0)
    )
    for seed in range(8):
        values = dataset[Draw(0, seed)].frames
        assert int(values.max()) - int(values.min()) < 64


def test_large_crops_of_the_same_place_show_the_same_part() -> None:
    still = OneClip(noise(64, 64).expand(2, -1, -1, -1))
    clip = MultiCrop(still, size=32, local_crops=0, colour=0.0, same_place=True, patch_size=8)[Draw(0, 3)]
    assert torch.equal(clip.frames[0], clip.frames[1])
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    assert torch.allclose(
        clip.features[MATCHES][0], torch.stack([columns, rows], -1).flatten(0, 1), atol=1e-4
    )


def test_without_colour_changes_crops_keep_their_colours() -> None:
    image = noise(16, 16)
    assert recoloured(image, generator_of(0), strength=0.0, blur=1.0, solarise=1.0) is image
    changed = [recoloured(image, generator_of(seed), strength=1.0, blur=0.5) for seed in range(4)]
    assert any(not torch.equal(one, image) for one in changed)
    assert all(one.dtype == torch.uint8 for one in changed)


def test_solarisation_inverts_bright_pixels() -> None:
    image = torch.tensor([[[10, 200]]] * 3, dtype=torch.uint8)
    seeds = range(40)
    results = [recoloured(image, generator_of(seed), strength=1.0, solarise=1.0)[0, 0, 1] for seed in seeds]
    assert min(int(value) for value in results) < 128


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        crops(local_crops=3)
    with pytest.raises(ValueError, match="multiple"):
        crops(size=30)
    with pytest.raises(ValueError, match="colour"):
        crops(colour=2.0)


def test_the_fingerprint_changes_with_the_settings() -> None:
    assert crops().fingerprint() == crops().fingerprint()
    assert crops().fingerprint() != crops(colour=0.5).fingerprint()
