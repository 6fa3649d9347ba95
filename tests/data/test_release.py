"""The `release:` block: what it may hold, and that every yaml's is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vosssl.data.release import Release, RemoteFile, listed

CFG = Path(__file__).parents[2] / "cfg" / "data"
MADE = ("synthetic", "synthetic_targets", "folder", "video")  # nobody offers these


def blocks() -> list[str]:
    return sorted(path.stem for path in CFG.glob("*.yaml") if "\nrelease:" in path.read_text())


@pytest.mark.parametrize("name", blocks())
def test_the_release_of_a_dataset_is_valid_and_says_its_terms(name: str) -> None:
    release = Release.from_dict(OmegaConf.to_container(OmegaConf.load(CFG / f"{name}.yaml"))["release"])
    assert release.title and release.home.startswith("http") and release.licence
    assert release.files and release.chosen(None)
    assert all(release.chosen([part]) for part in release.parts)
    names = [(file.into, file.name) for file in release.files if not file.listing]
    assert len(names) == len(set(names)), "two files of one name"


def test_data_that_somebody_offers_have_a_release() -> None:
    mixes = {path.stem for pattern in ("vos_*", "*crop*") for path in CFG.glob(f"{pattern}.yaml")}
    assert {path.stem for path in CFG.glob("*.yaml")} - set(blocks()) <= {*MADE, *mixes}


def test_a_file_is_named_by_its_address() -> None:
    release = Release.from_dict({"files": [{"url": "https://h/a%20b/c.zip?x=1"}]})
    assert release.files == (RemoteFile(url="https://h/a%20b/c.zip?x=1", name="c.zip"),)
    assert Release.from_dict(None) == Release()


def test_parts_are_chosen_with_what_belongs_to_all() -> None:
    files = [{"url": f"https://h/{name}.zip", "part": part} for name, part in ("av", "bt")]
    release = Release.from_dict({"files": [*files, {"url": "https://h/c.zip"}], "default_parts": ["v"]})
    assert [file.name for file in release.chosen(None)] == ["a.zip", "c.zip"]
    assert [file.name for file in release.chosen(["t"])] == ["b.zip", "c.zip"]
    with pytest.raises(ValueError, match="no part 'x'; it has v, t"):
        release.chosen(["x"])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"fils": []}, "unknown key 'fils'; it may hold title"),
        ({"files": {}}, r"release\.files is \{\}, expected a list"),
        ({"files": ["https://h/a.zip"]}, "expected mappings such as"),
        ({"files": [{"name": "a.zip"}]}, "no source, expected exactly one of url"),
        ({"files": [{"url": "https://h/a", "google_drive": "x", "name": "a"}]}, "url and google_drive"),
        ({"files": [{"google_drive": "x"}]}, "give it a plain file name"),
        ({"files": [{"url": "https://h/a", "name": "../a"}]}, "give it a plain file name"),
        ({"files": [{"google_drive": "https://drive/x", "name": "a"}]}, "expected the file's id alone"),
        ({"files": [{"url": "ftp://h/a"}]}, "expected an http:// or https://"),
        ({"files": [{"url": "https://h/a", "strip": -1}]}, "strip of a is -1"),
        ({"files": [{"url": "https://h/a", "strip": "1"}]}, "strip is '1', expected int"),
        ({"files": [{"url": "https://h/a", "md5": 12345678}]}, "expected str; put it in quotes"),
        ({"files": [{"url": "https://h/a", "into": "../x"}]}, "expected a folder below the root"),
        ({"megabytes": "large"}, "expected a number or null"),
        ({"title": 3}, "expected text"),
        ({"expect": [{"videos": 3}]}, "expected mappings with part: NAME"),
        ({"variants": ["x"]}, "expected mappings with name: NAME"),
        ([], "expected a mapping"),
    ],
)
def test_a_wrong_block_is_told(block: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Release.from_dict(block if block != [] else [1])


def test_a_listing_gives_files_with_size_and_checksum() -> None:
    file = RemoteFile(listing="https://h/o?prefix=x", select="a-*", part="train", into="128", unpack=False)
    items = [
        {"name": "x/a-0", "size": "3", "md5Hash": "CY9rzUYh03PK3k6DJie09g==", "mediaLink": "https://h/a0"},
        {"name": "x/b-0", "size": "3", "mediaLink": "https://h/b0"},
        {"name": "x/a-folder/", "size": "0", "mediaLink": "https://h/f"},
    ]
    (found,) = listed(file, items)
    assert (found.name, found.bytes, found.url) == ("a-0", 3, "https://h/a0")
    assert found.md5 == "098f6bcd4621d373cade4e832627b4f6"  # of `test`
    assert (found.part, found.into, found.unpack) == ("train", "128", False)
    with pytest.raises(ValueError, match="gives no address"):
        listed(file, [{"name": "x/a-1"}])
