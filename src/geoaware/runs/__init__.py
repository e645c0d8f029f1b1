"""What long work shares: files, checkpoints, logs, weights on disk, errors."""
