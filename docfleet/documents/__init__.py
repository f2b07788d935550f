"""What arrives: bytes to a file on disk, its type by content, its pages; nothing here parses for meaning."""

from __future__ import annotations
