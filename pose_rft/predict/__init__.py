"""Photographs and sentences to poses: what `pose-rft predict` does, a module for each step."""
