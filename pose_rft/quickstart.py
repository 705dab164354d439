"""`pose-rft quickstart`: from a fresh install to the user's own photograph with the bodies drawn over it."""

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
    """Finds the policy and prints which one it is, fetches the person detector if missing; returns the policy folder.

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
    """Returns a message with the path of the picture drawn for a photograph or sentence, and what to try next."""
    named = readable(str(source))
    begun = [event for event in read_events(out) if event["event"] == "begun" and event["source"] == named]
    drawn = [path for event in begun if (path := out / f"{event['name']}.png").exists()]
    return f"\nLook at {(drawn[-1] if drawn else out).resolve()}\n{NEXT}"
