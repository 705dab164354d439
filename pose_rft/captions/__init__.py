"""Pose → text: automatic captions from posecodes, mirrored captions, and facts that questions may ask about."""
