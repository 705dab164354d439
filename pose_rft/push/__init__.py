"""A policy as a folder for others: weights, the code that loads them without this project, and a model card."""
