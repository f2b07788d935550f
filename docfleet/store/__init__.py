"""The truth about jobs, shards and workers, on disk."""
