"""What only a CUDA device can show; passed over elsewhere. `python scripts/gpu_check.py` runs these."""

import pytest
import torch

from tests.engine.training_run import SmallNetwork, StepLoader, make_trainer, reconstruction
from vosssl.backbones.vit import dino
from vosssl.engine import checkpoint
from vosssl.engine.distributed import World, resolve_device
from vosssl.engine.trainer import Trainer
from vosssl.methods.videosaur import VideoSAUR
from vosssl.metrics.ari import image_fg_ari, video_ari
from vosssl.metrics.object_jf import video_object_jf
from vosssl.metrics.overlap import image_miou, video_mbo
from vosssl.ops.kmeans import kmeans
from vosssl.ops.slot_matching import continue_order

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def run(run_dir, **options) -> Trainer:
    torch.manual_seed(0)
    network = SmallNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    options = {"steps": 30} | options
    return Trainer(network, reconstruction, StepLoader(), optimizer, run_dir=run_dir, bar=False, **options)


def test_auto_takes_the_gpu():
    assert resolve_device("auto").type == "cuda"


def test_the_gpu_learns_what_the_cpu_learns(tmp_path):
    on_cpu, on_gpu = run(tmp_path / "cpu", device="cpu"), run(tmp_path / "gpu", device="cuda")
    on_cpu.fit()
    result = on_gpu.fit()
    for one, other in zip(on_cpu.network.parameters(), on_gpu.network.parameters(), strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-3)
    assert 0 < result.peak_memory_bytes < 2**30


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_ends_near_full_precision(tmp_path, precision):
    full = run(tmp_path / "full", device="cuda", steps=100).fit()
    mixed = run(tmp_path / precision, device="cuda", steps=100, precision=precision).fit()
    assert mixed.losses["mse"] == pytest.approx(full.losses["mse"], rel=0.1)


def test_a_compiled_network_takes_the_same_steps(tmp_path):
    eager, compiled = run(tmp_path / "eager", device="cuda"), run(tmp_path / "b", device="cuda", compile=True)
    eager.fit()
    compiled.fit()
    for one, other in zip(eager.network.parameters(), compiled.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_a_run_stopped_on_the_gpu_goes_on_there_and_loads_on_the_cpu(tmp_path):
    world = World(device=torch.device("cuda", 0))
    whole = make_trainer(tmp_path / "whole", world=world, steps=12, accumulate=2, drawn=True)
    whole.fit()
    first = make_trainer(tmp_path / "cut", world=world, steps=12, accumulate=2, drawn=True)
    first.max_seconds = 1e-9  # one step
    first.fit()
    assert first.step == 1
    second = make_trainer(tmp_path / "cut", world=world, steps=12, accumulate=2, drawn=True)
    second.resume(tmp_path / "cut" / "last.ckpt")
    second.fit()
    content = checkpoint.load(tmp_path / "cut" / "last.ckpt")
    assert content["network"]["out.weight"].device.type == "cpu"
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_vit_features_in_bf16_stay_close_to_fp32():
    torch.manual_seed(0)
    network = dino(patch_size=16).eval().cuda()
    images = torch.randn(4, 3, 224, 224, device="cuda")
    with torch.inference_mode():
        full = network(images).patches
        with torch.autocast("cuda", torch.bfloat16):
            half = network(images).patches.float()
    assert (half - full).norm() < 0.03 * full.norm()


def test_a_slot_network_gives_on_the_gpu_what_it_gives_on_the_cpu():
    torch.manual_seed(0)
    network = VideoSAUR(
        backbone=dino(patch_size=16, depth=2), features_dim=384, grid=(4, 4), num_slots=5
    ).eval()
    frames, seeds = torch.rand(2, 3, 3, 64, 64), torch.tensor([5, 6])  # (B, T, 3, H, W), (B,)
    with torch.inference_mode():
        on_cpu = network(frames, seeds=seeds)
        on_gpu = network.cuda()(frames.cuda(), seeds=seeds)
    torch.testing.assert_close(on_gpu.masks.cpu(), on_cpu.masks, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(on_gpu.slots.cpu(), on_cpu.slots, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("metric", [video_ari, image_fg_ari, video_mbo, image_miou, video_object_jf])
def test_a_metric_of_labels_on_the_gpu_is_that_of_labels_on_the_cpu(metric):
    generator = torch.Generator().manual_seed(0)
    predicted, truth = torch.randint(0, 5, (2, 3, 24, 40), generator=generator).byte()  # (T, H, W) each
    truth[0, :4] = 255
    on_cpu, on_gpu = (
        torch.as_tensor(metric(*pair)) for pair in ((predicted, truth), (predicted.cuda(), truth.cuda()))
    )
    assert torch.equal(on_gpu, on_cpu)


def test_clusters_and_the_order_of_slots_do_not_depend_on_the_device():
    points = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kmeans(points.cuda(), 4).cpu(), kmeans(points, 4))
    likeness = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(continue_order(likeness.cuda()).order, continue_order(likeness).order)
