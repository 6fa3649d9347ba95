"""Training-free memory policies for SAM 2 on videos; each is off unless it is given."""

from vosssl.methods.sam2.policies.distractor_aware import DistractorAware
from vosssl.methods.sam2.policies.memory_tree import MemoryTree
from vosssl.methods.sam2.policies.motion_aware import MotionAware

__all__ = ["DistractorAware", "MemoryTree", "MotionAware"]
