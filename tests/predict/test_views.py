"""Several looks at a person are one observation in the person's own square."""

import numpy as np
import pytest
import torch

from pose_rft.policy.blazepose import LANDMARKS, NUMBERS
from pose_rft.predict.regions import Region
from pose_rft.predict.views import VIEWS, into, observe
from tests.support.tiny_blazepose import MAPS, tiny_blazepose

BODY = Region((70.0, 50.0), 60.0, 0.4)


def as_seen_in(view: Region, truth: np.ndarray, upright: np.ndarray) -> torch.Tensor:
    """What a perfect network sees in `view` of a body at `truth` (33, 2) px with metres `upright` (33, 3)."""
    points = np.zeros((len(LANDMARKS), NUMBERS))
    points[:, :2] = (truth - view.center) @ view.axes() / (view.side / 2)
    points[:, 2] = 12 / (view.side / 2)
    points[:, 3:5] = 0.8
    points[:, 5:] = upright
    points[:, 5:7] = upright[:, :2] @ view.axes()
    return torch.from_numpy(np.append(points, 0.9))


@pytest.mark.parametrize("scale, degrees", VIEWS)
def test_what_is_seen_in_a_view_lies_in_the_square_as_if_seen_there(scale, degrees):
    rng = np.random.default_rng(0)
    truth, metres = rng.uniform(20, 90, (len(LANDMARKS), 2)), rng.normal(size=(len(LANDMARKS), 3))
    view = Region(BODY.center, scale * BODY.side, BODY.angle + np.radians(degrees))
    back = into(BODY, view, as_seen_in(view, truth, metres))
    assert torch.allclose(back, as_seen_in(BODY, truth, metres), atol=1e-9)


def test_everyone_gets_an_observation_and_views_that_agree_are_what_each_of_them_saw(picture, monkeypatch):
    encoder = tiny_blazepose()
    assert observe(encoder, [(picture, one) for one in (BODY, BODY, Region((20, 20), 30))]).shape == (
        3,
        1,
        2 * MAPS + len(LANDMARKS) * NUMBERS + 1,
    )
    truth, metres = np.full((len(LANDMARKS), 2), 60.0), np.ones((len(LANDMARKS), 3))
    turned = (Region(BODY.center, scale * BODY.side, BODY.angle + np.radians(by)) for scale, by in VIEWS)
    views = torch.stack([as_seen_in(view, truth, metres) for view in turned])[:, None]
    maps = torch.arange(len(VIEWS)).view(-1, 1, 1).expand(-1, 1, 2 * MAPS)
    monkeypatch.setattr(encoder, "observe", lambda crops: torch.cat([maps, views], -1))
    found = observe(encoder, [(picture, BODY)])[0, 0]
    assert torch.allclose(found[2 * MAPS :], as_seen_in(BODY, truth, metres), atol=1e-9)
    assert not found[: 2 * MAPS].any()  # of the first view, the square itself
