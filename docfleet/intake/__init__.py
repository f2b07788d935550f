"""The door's first steps: the bytes of a request to disk, looked at in a process of their own, then a job."""

from __future__ import annotations
