"""Publishes a policy as a folder: weights, the code that loads them without this project, and a model card."""
