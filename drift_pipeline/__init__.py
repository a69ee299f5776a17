"""Closed-loop drift monitoring and continuous retraining of machine-learning models."""

__version__ = "0.1.0"
