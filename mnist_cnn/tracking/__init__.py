"""MLflow: runs, the model registry, and trained models that are not logged yet."""
