"""Scoring, generation, prediction and chat with a trained model."""
