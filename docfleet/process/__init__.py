"""Processes beyond their number: who they are, whom they follow, what dies with them."""
