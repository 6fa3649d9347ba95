"""Which patches move together: what optical flow says about objects, without labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops.noise import sample_noise

EXACT_SAME = 0.06  # pixels: flow of one rigid surface agrees to rounding
EXACT_DIFFERENT = 0.25  # pixels
ROUGH_SAME = 0.5  # pixels, estimated flow
ROUGH_DIFFERENT = 1.5  # pixels: 7 in 10 such patches of generated clips are objects', 6 in 10 at 1 pixel
NEAR = 10.0  # pixels: movers closer than this that move alike are one object


class MotionPairs(NamedTuple):
    """What is known about pairs of an anchor patch and other patches.

    Attributes:
        anchors: (N, A) int64 patch numbers.
        same: (N, A, P) bool, moves with the anchor.
        different: (N, A, P) bool, moves otherwise; neither means unknown.
        weight: (N, A), how much an anchor counts: less the more patches move with it, 0 when unusable.
    """

    anchors: Tensor
    same: Tensor
    different: Tensor
    weight: Tensor


class PatchMotion(NamedTuple):
    """Motion of the patches of N frames.

    Attributes:
        position: (P, 2) pixels (x, y) of patch centres.
        flow: (N, P, 2) pixels.
        turn: (N, P, 2) similarity part (a, b): flow changes by (a dx - b dy, b dx + a dy).
        reliable: (N, P) bool.
    """

    position: Tensor
    flow: Tensor
    turn: Tensor
    reliable: Tensor


def patch_motion(flow: Tensor, grid: tuple[int, int]) -> PatchMotion:
    """Mean flow of each patch and its local similarity, read from the differences across the patch.

    Args:
        flow: (N, 2, H, W) pixels.
        grid: (h, w), with patches of at least 2 pixels a side.

    Returns:
        The motion; a patch is reliable when its four sides agree on one similarity, so not across an edge.

    Raises:
        ValueError: a grid that does not divide the flow.
    """
    height, width = flow.shape[-2:]
    rows, columns = grid
    if height % rows or width % columns or min(height // rows, width // columns) < 2:
        raise ValueError(
            f"flow of {height} x {width} on a grid of {grid}: expected patches of whole pixels, at least "
            "2 x 2; train on frames whose sides are multiples of 8"
        )
    tall, wide = height // rows, width // columns
    patches = flow.unflatten(-1, (columns, wide)).unflatten(-3, (rows, tall))  # (N, 2, h, tall, w, wide)
    along_x = (patches[..., -1] - patches[..., 0])[..., (0, -1), :] / (wide - 1)  # (N, 2, h, 2, w)
    along_y = (patches[..., -1, :, :] - patches[..., 0, :, :])[..., (0, -1)] / (tall - 1)  # (N, 2, h, w, 2)
    stretch = torch.stack([along_x[:, 0].movedim(2, -1), along_y[:, 1]])  # (2, N, h, w, 2): estimates of a
    spin = torch.stack([along_x[:, 1].movedim(2, -1), -along_y[:, 0]])  # estimates of b
    a, b = stretch.mean((0, -1)), spin.mean((0, -1))  # (N, h, w)
    deviation = torch.maximum((stretch - a[..., None]).abs(), (spin - b[..., None]).abs()).amax((0, -1))
    y, x = torch.meshgrid(
        torch.arange(rows, device=flow.device) * tall + (tall - 1) / 2,
        torch.arange(columns, device=flow.device) * wide + (wide - 1) / 2,
        indexing="ij",
    )
    return PatchMotion(
        position=torch.stack([x, y], -1).flatten(0, 1),
        flow=patches.mean((3, 5)).flatten(2).transpose(1, 2),  # (N, 2, h, w) -> (N, P, 2)
        turn=torch.stack([a, b], -1).flatten(1, 2),
        reliable=(deviation < 0.01).flatten(1),
    )


def dominant_residual(motion: PatchMotion, *, rounds: int = 8) -> Tensor:
    """Flow without the motion of most of the picture (the camera's): (N, P, 2) pixels.

    An affine motion fitted by least squares, reweighted to follow the majority.

    Args:
        motion: of N frames.
        rounds: of reweighting.
    """
    place = motion.position / motion.position.amax().clamp(min=1)
    design = F.pad(place, (0, 1), value=1.0).to(motion.flow)  # (P, 3)
    residual = motion.flow - motion.flow.median(dim=1, keepdim=True).values
    for _ in range(rounds):
        scale = residual.norm(dim=-1).median(dim=1).values.clamp(min=0.1)  # (N,)
        weight = 1 / (1 + (residual.norm(dim=-1) / (1.5 * scale[:, None])) ** 2) ** 2  # (N, P)
        normal = torch.einsum("np,pi,pj->nij", weight, design, design) + 1e-4 * torch.eye(3).to(design)
        moment = torch.einsum("np,pi,npc->nic", weight, design, motion.flow)
        residual = motion.flow - design @ torch.linalg.solve(normal, moment)
    return residual


def exact_relations(motion: PatchMotion, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Same and different (N, A, P) for exact flow: does the anchor's similarity predict the patch's flow?

    Args:
        motion: of N frames.
        anchors: (N, A) patch numbers.
    """
    pick = anchors[..., None].expand(-1, -1, 2)
    flow, turn = motion.flow.gather(1, pick), motion.turn.gather(1, pick)  # (N, A, 2)
    x, y = motion.position[anchors].unbind(-1)
    a, b = turn.unbind(-1)
    base_x, base_y = flow[..., 0] - a * x + b * y, flow[..., 1] - b * x - a * y
    place = F.pad(motion.position, (0, 1), value=1.0).t().to(flow).expand(len(flow), -1, -1)  # (N, 3, P)
    wanted_x, wanted_y = motion.flow[:, None].unbind(-1)  # (N, 1, P)
    error_x = torch.baddbmm(wanted_x, torch.stack([a, -b, base_x], -1), place, beta=-1)  # (N, A, P)
    error_y = torch.baddbmm(wanted_y, torch.stack([b, a, base_y], -1), place, beta=-1)
    error = torch.maximum(error_x.abs_(), error_y.abs_())
    known = motion.reliable[:, None]
    return (error < EXACT_SAME) & known, (error > EXACT_DIFFERENT) & known


def rough_relations(motion: PatchMotion, residual: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Same and different (N, A, P) for estimated flow.

    Two patches belong together when both follow the dominant motion, or when both leave it, are near and
    move alike. They do not when one follows it and the other does not, or when movers move otherwise or are
    far apart.

    Args:
        motion: of N frames.
        residual: (N, P, 2) from `dominant_residual`.
        anchors: (N, A) patch numbers.
    """
    speed = residual.norm(dim=-1)
    still, moving = speed < ROUGH_SAME, speed > ROUGH_DIFFERENT  # (N, P)
    pick = anchors[..., None].expand(-1, -1, 2)
    apart = torch.cdist(motion.position[anchors].to(residual), motion.position.to(residual))  # (N, A, P)
    change = torch.cdist(residual.gather(1, pick), residual)
    faster = torch.maximum(speed.gather(1, anchors)[..., None], speed[:, None])
    still_anchor, moving_anchor = (state.gather(1, anchors)[..., None] for state in (still, moving))
    known = motion.reliable[:, None] & motion.reliable.gather(1, anchors)[..., None]  # (N, A, P)
    both_move = moving_anchor & moving[:, None]
    alike = change < ROUGH_SAME + 0.25 * faster
    same = (still_anchor & still[:, None]) | (both_move & alike & (apart < NEAR))
    other = both_move & ((change > ROUGH_DIFFERENT + 0.5 * faster) | (apart > 4 * NEAR))
    different = (still_anchor & moving[:, None]) | (moving_anchor & still[:, None]) | other
    return same & known, different & known


def motion_pairs(
    flow: Tensor, grid: tuple[int, int], *, anchors: int, seeds: Tensor, reliable: Tensor | None = None
) -> tuple[MotionPairs, MotionPairs | None]:
    """Pairs within each frame and from each frame to the next.

    Args:
        flow: (B, T, 2, H, W) pixels, forward.
        grid: (h, w) of the patches.
        anchors: A, patches per frame that are compared with all others.
        seeds: (B,) int64; which patches are anchors depends on them alone.
        reliable: (B, T, H, W) bool, where estimated flow can be trusted; None: the flow is exact, and is then
            compared by exact similarities instead of against the dominant motion.

    Returns:
        Pairs within frames (N = B*T), and across frames (N = B*(T-1), anchors in the earlier frame, the
        others in the later one), None for single frames. An anchor that leaves the picture or runs into
        another motion has weight 0 across frames.
    """
    batch, length = flow.shape[:2]
    motion = patch_motion(flow.flatten(0, 1), grid)
    residual = None
    if reliable is not None:
        trusted = F.adaptive_avg_pool2d(reliable.flatten(0, 1).float(), grid).flatten(1) == 1  # (B*T, P)
        motion = motion._replace(reliable=trusted)
        residual = dominant_residual(motion)
    count = min(anchors, grid[0] * grid[1])
    draw = sample_noise(seeds.cpu(), (length, motion.flow.shape[1])).to(flow.device).flatten(0, 1)
    chosen = (draw + 100.0 * motion.reliable).topk(count, dim=1).indices  # (B*T, A)

    def relations(part: PatchMotion, left: Tensor | None, which: Tensor) -> tuple[Tensor, Tensor]:
        return exact_relations(part, which) if left is None else rough_relations(part, left, which)

    same, different = relations(motion, residual, chosen)
    within = MotionPairs(chosen, same, different, _weights(same, least=2))
    if length == 1:
        return within, None

    def frames(values: Tensor, part: slice) -> Tensor:
        return values.unflatten(0, (batch, length))[:, part].flatten(0, 1)

    before, after = slice(None, -1), slice(1, None)
    earlier = frames(chosen, before)
    landing = motion.position + frames(motion.flow, before)  # (B*(T-1), P, 2)
    target = landing.gather(1, earlier[..., None].expand(-1, -1, 2))  # (B*(T-1), A, 2)
    landed, usable = _patch_at(target, motion.position, grid)
    away_x = (target[..., :1] - landing[:, None, :, 0]).abs_()  # (N, A, P)
    away_y = (target[..., 1:] - landing[:, None, :, 1]).abs_()
    close = torch.maximum(away_x, away_y) < 2.5  # pixels: one patch and a bit
    usable = usable & ~(close & frames(different, before)).any(-1)
    known = frames(motion.reliable, after)
    later = PatchMotion(motion.position, frames(motion.flow, after), frames(motion.turn, after), known)
    same, different = relations(later, None if residual is None else frames(residual, after), landed)
    usable = usable & known.gather(1, landed) & frames(motion.reliable, before).gather(1, earlier)
    return within, MotionPairs(earlier, same, different, _weights(same, least=1) * usable)


def _patch_at(place: Tensor, position: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Number of the patch at each place (N, A, 2), and whether it lies in the picture."""
    step = torch.stack([position[-1, 0] - position[0, 0], position[-1, 1] - position[0, 1]])
    sides = torch.tensor([grid[1], grid[0]], device=place.device)
    cell = ((place - position[0]) / (step / (sides - 1).clamp(min=1)).clamp(min=1)).round()  # (x, y)
    inside = ((cell >= 0) & (cell < sides)).all(-1)
    column, row = cell.long().clamp(min=0).minimum(sides - 1).unbind(-1)
    return row * grid[1] + column, inside


def _weights(same: Tensor, *, least: int) -> Tensor:
    """1 / sqrt of how many patches move with the anchor: large objects count more, but not in proportion."""
    size = same.sum(-1).float()
    return size.clamp(min=1).rsqrt() * (size >= least)
