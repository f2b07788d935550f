"""How one document becomes many pieces of work, and what becomes of pieces that fail: pure functions, no I/O."""
