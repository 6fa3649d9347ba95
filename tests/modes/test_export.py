"""mode=export and method=exported through the command line, and as a library."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import vosssl
from tests.modes.runs import DATA
from vosssl.__main__ import main
from vosssl.data.io import write_labels
from vosssl.data.video import open_video
from vosssl.engine.export import require_exporter
from vosssl.engine.parity import agreement, followed
from vosssl.engine.quantise import quantise
from vosssl.methods.segformer import SegFormer
from vosssl.modes.export import pieces
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.graph_folder import read_manifest

SMALL = (
    "method=segformer-b0", "method.network.widths=[8,8,10,16]", "method.network.depths=[1,1,1,1]",
    "method.network.head_width=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SegFormer, its weights in weights.pt, exported in three precisions."""
    place = tmp_path_factory.mktemp("exported")
    network = SegFormer(widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), head_width=8)
    torch.save(network.state_dict(), place / "weights.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        command = ["mode=export", *SMALL, "device=cpu", "weights=weights.pt", "export.folder=graphs"]
        more = ["export.frames=[[64,96],[32,32]]", "export.also=[int8,int8-static,fp16]"]
        assert main([*command, *more, "export.calibration_clips=4", "export.calibration_frames=2"]) == 0
    return place


def test_the_manifest_says_what_was_exported_and_how_well(folder: Path) -> None:
    manifest = read_manifest(folder / "graphs")
    assert manifest["name"] == "segformer-b0" and manifest["opset"] == 18
    assert len(manifest["source"]["sha256"]) == 64 and manifest["source"]["weights"] == "weights.pt"
    assert "IMAGENET_MEAN" in manifest["preprocessing"]
    for name, entry in manifest["graphs"].items():
        assert (folder / "graphs" / f"{name}.onnx").stat().st_size == entry["bytes"]
        assert [check["fits"] for check in entry["checked"]] == [True, True]
        assert max(check["difference"] for check in entry["checked"]) < 1e-3


def test_calibration_sees_pieces_from_all_along_its_videos(tmp_path: Path) -> None:
    clip = vosssl.data.synthetic.SyntheticClips(size=(16, 24), frames=10, count=1, flow=False)[0]
    for number, frame in enumerate(clip.frames):
        path = tmp_path / "film" / "JPEGImages" / "480p" / "film" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path)
    video = open_video(path.parent)
    names = [piece.frame_names for piece in pieces(video, 3, 2)]
    assert names == [("00000", "00001"), ("00003", "00004"), ("00006", "00007")]
    assert [len(piece.frames) for piece in pieces(video, 3, 20)] == [10]
    for number in (2, 5):
        labels = tmp_path / "film" / "Annotations" / "480p" / "film" / f"{number:05d}.png"
        write_labels(labels, clip.labels[number])
    video = open_video(path.parent)
    assert [piece.frame_names[0] for piece in pieces(video, 4, 2)] == ["00002", "00005"]


@pytest.mark.parametrize("wrong", ["export.also=[int4]", "export.calibration=nowhere.mp4"])
def test_what_cannot_be_quantised_is_refused_before_anything_is_written(
    wrong: str, folder: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    command = ["mode=export", *SMALL, "device=cpu", "weights=weights.pt", "export.folder=other", wrong]
    with pytest.raises(SystemExit):
        main(command)
    assert wrong.partition("=")[2].strip("[]") in capsys.readouterr().err
    assert not (folder / "other").exists()


def test_an_exported_model_is_scored_like_any_other(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    command = ["mode=eval", "method=exported", "weights=graphs", "data=synthetic", "device=cpu"]
    assert main([*command, *DATA[1:], "floors=null", "method.segmenter.size=32"]) == 0
    (report,) = folder.glob("runs/*/*/report.json")
    assert json.loads(report.read_text())["name"] == "segformer-b0-exported"


def test_an_exported_model_is_an_entry_of_a_benchmark(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    small = [
        "data=synthetic",
        "device=cpu",
        *DATA[1:],
        "benchmark.floors=null",
        "benchmark.tasks=[discovery]",
    ]
    entries = ["benchmark.entries=[graphs,{method: exported, weights: graphs/int8, name: int8}]"]
    assert main(["mode=benchmark", *small, *entries, "benchmark.folder=compared"]) == 0
    table = (folder / "compared" / "table.md").read_text()
    assert "segformer-b0-exported" in table and "int8" in table


def test_as_a_library_the_exported_segmenter_equals_the_other(folder: Path) -> None:
    clip = vosssl.data.synthetic.SyntheticClips(size=(64, 96), frames=3, count=1, flow=False)[0]
    network = SegFormer(widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), head_width=8).eval()
    network.load_state_dict(torch.load(folder / "weights.pt"))
    ours = followed(ClassSegmenter(network, stride=32, size=512), clip)
    exported = vosssl.create_segmenter("exported", weights=folder / "graphs", device="cpu")
    found = agreement(ours, followed(exported, clip))
    assert found.difference < 1e-3 and found.j_and_f >= 0.999
    for precision, limit in (("fp16", 0.01), ("int8", 0.2), ("int8-static", 0.3)):
        smaller = vosssl.create_segmenter("exported", weights=folder / "graphs" / precision, device="cpu")
        assert agreement(ours, followed(smaller, clip)).difference < limit


def test_what_was_quantised_is_not_quantised_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds int8 graphs"):
        quantise(folder / "graphs" / "int8", tmp_path, precision="fp16")
    with pytest.raises(ValueError, match="needs calibration"):
        quantise(folder / "graphs", tmp_path, precision="int8-static")


def test_a_manifest_constructs_only_what_is_ours(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder / "graphs")
    manifest["method"]["segmenter"] = {"_target_": "os.system"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"os\.system"):
        vosssl.create_segmenter("exported", weights=tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mode=eval", "method=exported", "data=synthetic"], "weights=FOLDER"),
        (["mode=eval", "method=exported", "weights=nowhere", "data=synthetic"], "holds no manifest.json"),
        (["mode=export", "method=copy-first-mask"], "has nothing to"),
        (["mode=export", "method=savi-boxes"], "starts from hints"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main([*arguments, "device=cpu"])
    except SystemExit as exit:
        status = int(exit.code or 0)
    assert status == 1
    assert said in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript: pip install 'vosssl\[export\]'"):
        require_exporter()
