"""Training, evaluation, checkpoints, reports: knows interfaces, never methods."""
