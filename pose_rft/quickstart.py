"""The first minutes: from nothing to a picture of the user's own photograph with bodies over it."""

from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.policy import packaged, pretrained
from pose_rft.predict import chosen

NEXT = """
Next:
  pose-rft demo                                     a page where you turn the body and see how sure the model is
  pose-rft predict --text "arms raised" -n 8        a sentence instead of a photograph, with eight samples
  pose-rft predict --help                           boxes, meshes, seeds"""


def prepare() -> Path:
    """Sees that a policy and the networks that find people are there, and says which; returns the policy's folder.

    Raises:
        PoseRftError: there is no policy, or a network can be neither found nor fetched.
    """
    policy = chosen.policy(None)
    print("model: " + ("the one that this package carries" if policy == packaged.policy() else str(policy)))
    try:
        pretrained.find(pretrained.DETECTOR)
    except PoseRftError:
        print("fetching the network that finds people (once) …", flush=True)
        pretrained.fetch()
    return policy


def outcome(out: Path) -> str:
    """Where the picture to look at lies, and what to try next."""
    pictures = sorted(out.glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
    return f"\nLook at {(pictures[-1] if pictures else out).resolve()}\n{NEXT}"
