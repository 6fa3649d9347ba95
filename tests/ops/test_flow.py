"""Flow over several frames, and turned back."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.flow import chained, turned_back


def test_chained_flow_follows_each_pixel() -> None:
    flow = torch.zeros(2, 2, 4, 8)
    flow[0, 0, :, :4] = 2.0  # the left half moves right by two, where it then moves down by one
    flow[1, 1, :, 4:] = 1.0
    total = chained(flow)
    assert total[:, 1, 2].tolist() == pytest.approx([2.0, 1.0], abs=1e-5)
    assert total[:, 1, 1].tolist() == pytest.approx([2.0, 0.0], abs=1e-5)
    assert total[:, 1, 6].tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert torch.equal(chained(flow[:1]), flow[0])


def test_flow_turned_back_leads_home() -> None:
    flow = torch.zeros(2, 3, 5)
    flow[0] = 2.0
    flow[:, 1, 0] = torch.nan
    back = turned_back(flow)
    assert back[:, 0].isnan().tolist() == [[True, True, False, False, False]] * 2
    assert back[:, 0, 3].tolist() == [-2.0, 0.0]
    assert back[:, 1, 2].isnan().all()  # who would have come is unknown
