"""Data, networks, training and search; knows neither MLflow nor the browser."""
