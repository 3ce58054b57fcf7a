"""A convolutional network for MNIST, every step of its life tracked in MLflow."""
