"""Pose → text: automatic captions from posecodes, their mirror, and facts that questions may ask for."""
