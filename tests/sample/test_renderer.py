import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.render.renderer import Light, Mesh, Renderer
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.scene import FLOORS, PALETTE, WALLS, Wardrobe, background, light, outfit

SIZE = (96, 96)
K = np.array([[120.0, 0, 48], [0, 120.0, 48], [0, 0, 1]])
FACE_CAMERA = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def body(standin_folder):
    return NumpyBody(standin_folder)


@pytest.fixture(scope="module")
def renderer(body):
    return Renderer(body.faces)


@pytest.fixture(scope="module")
def wardrobe(body):
    return Wardrobe(body)


def posed(body, seed: int = 0, at=(0.0, 0.0, 3.0)):
    R = sample_pose(np.random.default_rng(seed))
    R[0] = FACE_CAMERA @ R[0]
    return body.vertices(R, None, np.array(at) - body.rest_joints()[0])


def plain(body, color):
    return np.tile(np.array(color, np.float32), (len(body.faces), 1))


def project(points):
    return (points @ K.T)[:, :2] / points[:, 2:]


@pytest.mark.parametrize("seed", range(6))
def test_projected_joints_lie_inside_the_mask(body, renderer, seed):
    vertices, joints = posed(body, seed)
    _, mask = renderer.render(vertices, plain(body, (0.5, 0.5, 0.5)), K, SIZE, np.ones(3))
    inner = project(joints)[SMPL24.indices(["pelvis", "left_knee", "right_elbow", "spine2", "head", "left_shoulder"])]
    assert (mask[inner[:, 1].astype(int), inner[:, 0].astype(int)] > 0.3).all()
    pixels = project(vertices)
    rows, columns = np.nonzero(mask > 0)
    assert columns.min() >= np.floor(pixels[:, 0].min()) and columns.max() <= np.ceil(pixels[:, 0].max())
    assert rows.min() >= np.floor(pixels[:, 1].min()) and rows.max() <= np.ceil(pixels[:, 1].max())


def test_the_nearer_person_hides_the_farther_whatever_the_order(body, renderer):
    near, far = posed(body, 0, (0, 0, 2.5))[0], posed(body, 0, (0, 0, 3.5))[0]
    red, blue = plain(body, (0.9, 0.1, 0.1)), plain(body, (0.1, 0.1, 0.9))
    image, masks = renderer.render_people([Mesh(near, red), Mesh(far, blue)], K, SIZE, np.ones(3))
    other, swapped = renderer.render_people([Mesh(far, blue), Mesh(near, red)], K, SIZE, np.ones(3))
    np.testing.assert_array_equal(image, other)
    np.testing.assert_array_equal(masks, swapped[::-1])
    alone = renderer.render(near, red, K, SIZE, np.ones(3))[1]
    np.testing.assert_allclose(masks[0], alone)
    assert masks.sum(0).max() <= 1.0
    full = masks[0] == 1
    assert (image[full][:, 0] > image[full][:, 2]).all()


def test_left_of_the_person_is_right_in_the_picture(body, renderer, wardrobe):
    """A person who faces the camera: the mesh is not mirrored."""
    colors = plain(body, (0.1, 0.1, 0.1))
    colors[wardrobe.center[:, 0] > 0.2] = (0.9, 0.9, 0.9)  # the left arm
    R = np.tile(np.eye(3), (24, 1, 1))
    R[0] = FACE_CAMERA
    vertices, _ = body.vertices(R, None, np.array([0.0, 0, 3]))
    image, mask = renderer.render(vertices, colors, K, SIZE, np.zeros(3))
    bright = np.nonzero((image.mean(2) > 70) & (mask > 0.5))[1]
    assert bright.size and bright.min() > 48


def test_the_background_is_kept_where_nobody_stands(body, renderer):
    backdrop = np.random.default_rng(0).uniform(size=(*SIZE, 3)).astype(np.float32)
    image, mask = renderer.render(posed(body)[0], plain(body, (0.5, 0.5, 0.5)), K, SIZE, backdrop)
    free = mask == 0
    np.testing.assert_array_equal(image[free], (backdrop[free] * 255 + 0.5).astype(np.uint8))
    assert image.dtype == np.uint8 and image.shape == (*SIZE, 3) and mask.dtype == np.float32


def test_the_same_input_gives_the_same_picture(body, renderer, wardrobe):
    def picture():
        rng = np.random.default_rng(4)
        clothes = outfit(rng, wardrobe)
        backdrop = background(rng, SIZE)
        return Renderer(body.faces).render(posed(body)[0], clothes.face_colors, K, SIZE, backdrop.image, light(rng))[0]

    np.testing.assert_array_equal(picture(), picture())


def test_a_lamp_from_the_left_lights_the_left(body, renderer):
    R = np.tile(np.eye(3), (24, 1, 1))
    R[0] = FACE_CAMERA
    vertices, joints = body.vertices(R, None, np.array([0.0, 0, 3]))
    grey = plain(body, (0.5, 0.5, 0.5))
    x, y = project(joints)[SMPL24.index("spine2")].astype(int)
    left, right = (
        renderer.render(vertices, grey, K, SIZE, np.zeros(3), Light((side, 0.0, -0.4)))[0] for side in (-1.0, 1.0)
    )
    chest = np.s_[y - 2 : y + 3, x - 3 : x]
    assert left[chest].mean() > right[chest].mean() + 5


def test_people_behind_the_camera_are_not_drawn(body, renderer):
    image, mask = renderer.render(posed(body, 0, (0, 0, -3.0))[0], plain(body, (1, 0, 0)), K, SIZE, np.ones(3))
    assert not mask.any() and (image == 255).all()


def test_pictures_need_not_be_square(body, renderer):
    image, mask = renderer.render(posed(body)[0], plain(body, (1, 0, 0)), K, (60, 96), np.zeros((60, 96, 3)))
    assert image.shape == (60, 96, 3) and mask.shape == (60, 96)


def nearest_name(color, names):
    return min(names, key=lambda name: np.abs(np.array(names[name]) - color).max())


def test_descriptions_name_the_colours_that_are_worn(wardrobe):
    for seed in range(40):
        clothes = outfit(np.random.default_rng(seed), wardrobe)
        said = clothes.description
        assert said.top != said.bottom != said.shoes
        shown = clothes.face_colors
        assert shown.dtype == np.float32 and shown.min() >= 0 and shown.max() <= 1
        if said.pattern == "plain":
            belly = wardrobe.trunk & (wardrobe.height > wardrobe.waist + 0.05)
            assert nearest_name(np.median(shown[belly], axis=0), PALETTE) == said.top
        seat = wardrobe.lower & (wardrobe.leg < 0.4) & (wardrobe.height < wardrobe.waist - 0.12)
        assert nearest_name(np.median(shown[seat], axis=0), PALETTE) == said.bottom
        forearm = wardrobe.arms & (wardrobe.arm > 1.2) & (wardrobe.arm < 1.6)
        covered = np.allclose(np.median(shown[forearm], axis=0), np.median(shown[wardrobe.trunk], axis=0), atol=0.02)
        assert covered == (said.sleeves == "long") or said.pattern == "striped"
        shank = wardrobe.lower & (wardrobe.leg > 1.3) & (wardrobe.leg < 1.6)
        assert np.allclose(np.median(shown[shank], axis=0), np.median(shown[seat], axis=0)) == (said.legs == "trousers")


def test_rooms_show_the_colours_that_they_name():
    right = 0
    for seed in range(40):
        room = background(np.random.default_rng(seed), SIZE)
        said = room.description
        assert said.wall != said.floor and room.image.shape == (*SIZE, 3)
        wall, floor = np.median(room.image[: SIZE[0] // 3], (0, 1)), np.median(room.image[-10:], (0, 1))
        right += (nearest_name(wall, WALLS) == said.wall) + (nearest_name(floor, FLOORS) == said.floor)
    assert right >= 72  # a window or a door may hide the wall's middle
