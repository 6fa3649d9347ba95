"""Protocols: every file loads, says where its rules come from, and contradictions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vosssl.engine.protocol import list_protocols, load_protocol


@pytest.mark.parametrize("name", list_protocols())
def test_every_protocol_loads_and_names_its_source(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.source and protocol.compare_with
    assert not any(word in protocol.source for word in ("unverified", "recalled"))


def test_the_tables_of_videosaur_and_slotcontrast_have_their_sizes() -> None:
    for movi in ("movi-c", "movi-e"):
        assert load_protocol(movi).size == (336, 336)
        assert load_protocol(f"{movi}-224").size == (224, 224)
    whole, chunks = load_protocol("ytvis2021"), load_protocol("ytvis2021-chunks")
    assert (whole.size, chunks.size) == ((518, 518), (224, 224))
    assert whole.crop == chunks.crop == "center"


@pytest.mark.parametrize("rule", ["void: true", "size: [8, 8]", "crop: center", "metrics: [video/mbo]"])
def test_what_whole_masks_cannot_have_is_refused(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ntask: semi-supervised\nobjects: any-frame\nframes: object\n{rule}\n")
    with pytest.raises(ValueError, match="has frames: object"):
        load_protocol(path)


def test_an_unknown_choice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntask: semi-supervised\nframes: every\n")
    with pytest.raises(ValueError, match=r"frames of protocol .* is 'every'"):
        load_protocol(path)
