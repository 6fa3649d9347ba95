"""One small trained run for all tests of the modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.modes.runs import trained


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last.ckpt of a run of two steps, its config.yaml and report.json beside it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / trained(folder=folder)
