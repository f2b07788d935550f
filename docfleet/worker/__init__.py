"""Runs in each worker process: claim a shard, parse it, deliver it; never outlive the main process."""
