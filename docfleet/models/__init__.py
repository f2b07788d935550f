"""MinerU's model weights: who offers them, and what lies on this machine. Nothing here imports MinerU."""

from __future__ import annotations
