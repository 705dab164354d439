"""Pose-RFT: photographs and sentences to 3D human poses (arXiv 2508.07804)."""

__version__ = "0.2.0"
