"""The first minutes: from nothing to a picture of the user's own photograph with bodies over it."""

from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.policy import packaged, pretrained
from pose_rft.predict import chosen
from pose_rft.predict.store import read_events, readable

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


def outcome(out: Path, source: Path | str) -> str:
    """Where the picture of a photograph or sentence lies, and what to try next."""
    named = readable(str(source))
    begun = [event for event in read_events(out) if event["event"] == "begun" and event["source"] == named]
    drawn = [path for event in begun if (path := out / f"{event['name']}.png").exists()]
    return f"\nLook at {(drawn[-1] if drawn else out).resolve()}\n{NEXT}"
