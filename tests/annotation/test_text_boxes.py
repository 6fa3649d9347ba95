"""Objects by text: the message without the extra, and the mechanics with a small random network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from vosssl.annotation.text_boxes import GroundingDino

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
        decoder_layers=1,
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


def test_a_network_of_random_weights_gives_boxes_inside_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finder = GroundingDino(str(small_model(tmp_path)), threshold=0.0, text_threshold=0.0)
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = finder(image, "A dog")
    assert 0 < len(found) <= 12
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    for box, _ in found:
        assert 0 <= box.left < box.right <= 64 and 0 <= box.top < box.bottom <= 48
    again = finder(image.float() / 255, "a dog.")
    assert [box for box, _ in again] == [box for box, _ in found]


def test_a_model_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"cannot be loaded.*annotate\.text=FOLDER"):
        GroundingDino(str(tmp_path / "nothing"))(torch.zeros(3, 8, 8), "a dog")
