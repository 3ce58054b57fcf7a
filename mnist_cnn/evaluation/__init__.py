"""What is measured of a trained model: figures, plots, corruptions, attacks, model card."""
