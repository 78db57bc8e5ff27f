"""The engine: training, checkpoints, evaluation, and the folder in which a run lives."""
