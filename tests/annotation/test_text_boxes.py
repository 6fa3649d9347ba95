"""Objects by text: the message without the extra, and the mechanics with a small random network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.propagation.clickable import ColourNetwork, ColourSegmenter, squares
from vosssl.annotation.desk import Desk
from vosssl.annotation.project import Annotation
from vosssl.annotation.text_boxes import GroundingDino
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter

WORDS = {
    0: "[PAD]",
    100: "[UNK]",
    101: "[CLS]",
    102: "[SEP]",
    103: "[MASK]",
    1012: ".",
    1029: "?",
    1037: "a",
    1050: "dog",
}


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'vosssl\[text\]'"):
        GroundingDino()(torch.zeros(3, 8, 8), "a dog")


def small_model(folder: Path) -> Path:
    """A GroundingDINO of random weights with its processor; the ids of its words are BERT's."""
    transformers = pytest.importorskip("transformers")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("".join(f"{WORDS.get(number, f'[unused{number}]')}\n" for number in range(1100)))
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 2],
            window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=32,
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,  # with one, transformers finds nothing to tie the box head to
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    words = transformers.BertTokenizerFast(vocab_file=str(vocabulary))
    transformers.GroundingDinoProcessor(images, words).save_pretrained(folder)
    return folder


def test_a_network_of_random_weights_gives_boxes_inside_the_image(offline_model: Path) -> None:
    finder = GroundingDino(str(offline_model), threshold=0.0, text_threshold=0.0)
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = finder(image, "A dog")
    assert 0 < len(found) <= 12
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    for box, _ in found:
        assert 0 <= box.left < box.right <= 64 and 0 <= box.top < box.bottom <= 48
    again = finder(image.float() / 255, "a dog.")
    assert [box for box, _ in again] == [box for box, _ in found]


@pytest.fixture
def offline_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return small_model(tmp_path)


def desk_with(finder: GroundingDino, folder: Path) -> Desk:
    """The page's actions on a video of two squares, with a network that finds what is not black in a box."""
    work = ClickAndTrack(
        squares(), ColourSegmenter(), prompter=ImagePrompter(ColourNetwork()), folder=folder / "squares"
    )
    project = Annotation(work)
    return Desk(lambda source: project, folder=folder, project=project, finder=finder)


def test_text_becomes_boxes_masks_and_tracks(offline_model: Path, tmp_path: Path) -> None:
    desk = desk_with(GroundingDino(str(offline_model), threshold=0.0, overlap=0.3), tmp_path)
    answer = desk.act("text", {"frame": 0, "text": "a dog"})
    scores, objects = answer["result"], answer["state"]["objects"]
    assert len(scores) == len(objects) > 0
    assert {one["name"] for one in objects} == {"a dog"}
    desk.act("track", {"frame": 0})
    assert desk._thread is not None
    desk._thread.join()
    assert desk.job is not None and desk.job.message == "done"
    assert desk.project is not None and desk.project.work.labels(7).any()


def test_where_nothing_is_found_the_page_says_so_and_goes_on(offline_model: Path, tmp_path: Path) -> None:
    desk = desk_with(GroundingDino(str(offline_model), threshold=1.0), tmp_path)
    with pytest.raises(ValueError, match="nothing in frame 0 was taken for 'a dog'"):
        desk.act("text", {"frame": 0, "text": "a dog"})
    assert desk.state()["objects"] == [] and desk.state()["draft"] is None
    desk.act("click", {"frame": 0, "x": 5, "y": 5})
    assert desk.act("accept", {})["result"] == 1


def test_a_text_longer_than_the_model_reads_is_refused(offline_model: Path) -> None:
    with pytest.raises(ValueError, match=r"403 parts of words, expected at most 256"):
        GroundingDino(str(offline_model))(torch.zeros(3, 32, 48), "a dog " * 200)


def test_a_frame_of_three_lines_is_not_taken_for_three_channels(offline_model: Path) -> None:
    finder = GroundingDino(str(offline_model), threshold=0.0)
    for height, width in ((3, 24), (24, 3)):
        for box, _ in finder(torch.rand(3, height, width), "a dog"):
            assert box.right <= width and box.bottom <= height


def test_a_model_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"cannot be loaded.*annotate\.text=FOLDER"):
        GroundingDino(str(tmp_path / "nothing"))(torch.zeros(3, 8, 8), "a dog")
