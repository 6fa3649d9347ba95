"""What tests of demos, pages and notebooks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.footage import write_footage


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with generated footage, see `write_footage`; read it, do not write to it."""
    return write_footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture(scope="session")
def slots_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last.ckpt of a run of hparam=slots of two steps."""
    from tests.modes.runs import trained  # torch and Hydra, only where they are needed

    folder = tmp_path_factory.mktemp("slots")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / trained(folder=folder)
