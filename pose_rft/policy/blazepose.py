"""BlazePose as a pose-aware encoder: MediaPipe's pose landmark network and a lifter from its landmarks to SMPL's pose.

The network (arXiv 2006.10204; weights of `mediapipe`, Apache-2.0) was pretrained on photographs of people and stays
frozen. From a square crop of 256 px it predicts 33 body landmarks: positions in the crop with depth, visibility, and
hip-centred coordinates in metres. The lifter is a small network trained here (`training/lifting.py`) on the landmarks
of the training crops and on the network's last feature maps, which tell more about a pose than the landmarks read from
them. It gives this encoder what training on SMPL gives HMR2.0's.

The policy receives one token: the landmarks and the lifted pose. `observe` is the expensive part, which training
caches; `interpret` is the lifter.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from pose_rft.body.joints import SMPL24, mirrored_name
from pose_rft.body.rotations import matrix_to_sixd, mirror_rotations, sixd_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.io.tflite import Graph, Weights, prune, read_tflite
from pose_rft.policy import pretrained
from pose_rft.policy.config import IMAGENET_NORM, POSE_NUMBERS, BlazePoseConfig
from pose_rft.policy.graph_net import GraphNet
from pose_rft.policy.pose_encoder import PoseEncoder

if TYPE_CHECKING:  # the model runs without pydantic
    from pose_rft.policy.params import BlazePoseParams

_NAMES = (
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear right_ear "
    "left_mouth right_mouth left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_pinky "
    "right_pinky left_index right_index left_thumb right_thumb left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle left_heel right_heel left_foot_index right_foot_index"
)
LANDMARKS = tuple(_NAMES.split())
MIRRORED = [LANDMARKS.index(mirrored_name(name)) for name in LANDMARKS]
NUMBERS = 8
"""Numbers per observed landmark: x, y, z in half crop sides, visibility, presence, and x, y, z in metres."""
NETWORK_POINTS = 39  # the network adds six that help tracking
FOUND = 0.5
"""Minimum score for a person to count as found."""
SAME_POSE = 0.3
"""Largest mean distance between two views' landmarks, in half crop sides, at which they count as the same pose."""
MAPS_WIDTH, MAPS_DROPOUT = 128, 0.3
"""Of the layer with which the lifter reads the maps, shared by the crop and its mirror image."""
SMALLEST_SPREAD = 1e-3  # half crop sides: keeps the features finite if all landmarks coincide


@dataclass(frozen=True, eq=False)
class Landmarks:
    """The network's detections in B crops.

    points: (B, 33, 3), x and y in [-1, 1] inside the crop, z in the same unit, negative towards the viewer, 0 at the
    hips. visibility: (B, 33) in [0, 1], inside the image and not occluded. world: (B, 33, 3) metres, camera axes,
    origin between the hips. score: (B,) in [0, 1], whether there is a person.
    """

    points: Tensor
    visibility: Tensor
    world: Tensor
    score: Tensor


class Dropout(nn.Dropout):
    """Dropout with a mask thresholded from uniform numbers: torch's own, drawn one by one on a CPU, is 5x slower."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return input * ((torch.rand_like(input) >= self.p) / (1 - self.p))


class Lifter(nn.Module):
    """Lifts landmarks and maps to a pose: (B, 33, 8), (B, 2, M) → (B, 144) 6D rotations, root in the camera frame.

    The landmarks are first normalised by their own centre and spread: a person's place in the crop is not part of the
    pose. The maps are those of the crop and of its mirror image; zeros mean no maps, which occurs in training too.
    """

    mean_pose: Tensor
    maps_mean: Tensor
    maps_scale: Tensor

    def __init__(self, width: int, layers: int, maps: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean_pose", torch.zeros(POSE_NUMBERS))
        self.register_buffer("maps_mean", torch.zeros(maps))
        self.register_buffer("maps_scale", torch.ones(maps))
        self.enter = nn.Linear(len(LANDMARKS) * NUMBERS, width)
        self.read_map = nn.Sequential(Dropout(MAPS_DROPOUT), nn.Linear(maps, MAPS_WIDTH), nn.GELU())
        self.enter_maps = nn.Linear(2 * MAPS_WIDTH, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.GELU(),
                Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(layers)
        )
        self.leave = nn.Linear(width, POSE_NUMBERS)

    def forward(self, landmarks: Tensor, maps: Tensor) -> Tensor:
        seen = (maps != 0).any(-1).any(-1, keepdim=True)
        read = self.enter_maps(self.read_map((maps - self.maps_mean) / self.maps_scale).flatten(1))
        hidden = self.enter(centred(landmarks).flatten(1)) + torch.where(seen, read, 0.0)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        raw = self.mean_pose + self.leave(hidden)
        # Orthonormalised: the loss ignores the length of raw columns, but the policy's density would not.
        return matrix_to_sixd(sixd_to_matrix(raw.unflatten(-1, (len(SMPL24), 6)))).flatten(1)

    def both_ways(self, landmarks: Tensor, maps: Tensor) -> Tensor:
        """Averages `forward` of the input and, mirrored back, of its mirror image.

        Any asymmetry of the lifter between left and right is an error, and half of it cancels. For inference only:
        training shows mirrored people as separate examples.
        """
        plain, other = (
            sixd_to_matrix(self(*seen).unflatten(-1, (len(SMPL24), 6)))
            for seen in ((landmarks, maps), (mirrored(landmarks), maps.flip(1)))
        )
        mean = (plain + mirror_rotations(other)) / 2
        return matrix_to_sixd(sixd_to_matrix(matrix_to_sixd(mean))).flatten(1)


def centred(landmarks: Tensor) -> Tensor:
    """Normalises positions in (B, 33, 8) by their own centre and spread; all numbers become of order 1."""
    places, seen, world = landmarks[..., :3], landmarks[..., 3:5], landmarks[..., 5:]
    middle = places[..., :2].mean(1, keepdim=True)
    flat = places[..., :2] - middle
    spread = flat.square().sum(-1, keepdim=True).mean(1, keepdim=True).sqrt() + SMALLEST_SPREAD
    return torch.cat([flat / spread, places[..., 2:] / spread, seen - 0.5, 4 * world], -1)


class BlazePose(PoseEncoder):
    """The landmark network (`network`) and the lifter behind it (`lifter`)."""

    config_class = BlazePoseConfig
    config: BlazePoseConfig
    learned = "lifter"
    reads_pose = True
    mirrors = True

    def __init__(self, config: BlazePoseConfig) -> None:
        super().__init__(config)
        self.image_size, self.grid = config.image_size, (1, 1)
        self.width = len(LANDMARKS) * NUMBERS + POSE_NUMBERS
        self.network = GraphNet(config.graph)
        self.maps = maps_size(config.graph)
        self.lifter = Lifter(config.lifter_width, config.lifter_layers, self.maps)
        self.post_init()

    def observe(self, pixels: Tensor) -> Tensor:
        """(B, 3, 256, 256) normalised pixels → (B, 1, 2 · M + 33 · 8 + 1): maps, landmarks, the person's score.

        The maps are the network's last ones, of the crop and of its mirror image. The landmarks are averaged over both:
        the network's errors differ between them (by a median of 3.7 px and 78 mm on BEDLAM's crops), so half of them
        cancel. If the two disagree, the one with the higher score is used.
        """
        (one, maps), (other, flipped) = self._look_around(pixels), self._look_around(pixels.flip(-1))
        other = _mirrored(other)
        apart = (_points(one)[..., :2] - _points(other)[..., :2]).norm(dim=-1).mean(1)
        agree = (one[:, -1] >= FOUND) & (other[:, -1] >= FOUND) & (apart < SAME_POSE)
        likelier = torch.where((one[:, -1] >= other[:, -1])[:, None], one, other)
        return torch.cat([maps, flipped, torch.where(agree[:, None], (one + other) / 2, likelier)], 1)[:, None]

    def _look_around(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output for each crop, rotated if needed, (B, 33 · 8 + 1), and the crop's maps, (B, M).

        The network expects people upright in their crop. If a person leans by more than an eighth of a turn, or is not
        found, the crop is tried in all four quarter turns; the best view is used, rotated back. Maps cannot be rotated
        back: they are always those of the unrotated crop.
        """
        seen, maps = self._look(pixels)
        doubtful = ((seen[:, -1] < FOUND) | (_lean(seen) > math.pi / 4)).nonzero()[:, 0]
        if len(doubtful):
            views = [seen[doubtful]]
            for turns in (1, 2, 3):
                view, _ = self._look(torch.rot90(pixels[doubtful], turns, (2, 3)))
                views.append(_turned_back(view, turns))
            worth = torch.stack([_worth(view, turns) for turns, view in enumerate(views)])
            best = worth.argmax(0)
            seen = seen.index_copy(0, doubtful, torch.stack(views)[best, torch.arange(len(best), device=best.device)])
        return seen, maps

    def _look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output for each crop, (B, 33 · 8 + 1), and its maps (B, M), in the dtype of the crops."""
        mean, deviation = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in IMAGENET_NORM)
        unit = (pixels * deviation + mean).to(next(self.network.parameters()).dtype)
        # On a CPU one image at a time is fastest: its feature maps fit into the cache.
        parts = [self.network(part) for part in (unit.split(1) if unit.device.type == "cpu" else [unit])]
        found, score, world, maps = (torch.cat([part[name] for part in parts]) for name in self.config.graph["outputs"])
        found = found.view(-1, NETWORK_POINTS, 5)[:, : len(LANDMARKS)]
        world = world.view(-1, NETWORK_POINTS, 3)[:, : len(LANDMARKS)]
        half = self.image_size / 2
        places = torch.cat([found[..., :2] / half - 1, found[..., 2:3] / half], -1)
        numbers = torch.cat([places, found[..., 3:].sigmoid(), world], -1).flatten(1)
        return torch.cat([numbers, score.view(-1, 1)], 1).to(pixels.dtype), maps.flatten(1).to(pixels.dtype)

    def mirror(self, observed: Tensor) -> Tensor:
        """The observations of the mirrored crops."""
        maps, seen = self._halves(observed)  # exact: an observation covers the crop and its mirror image
        return torch.cat([maps.flip(1).flatten(1), _mirrored(seen)], 1)[:, None]

    def parts(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Splits observations (B, 1, W) into the lifter's inputs: landmarks (B, 33, 8) and maps (B, 2, M)."""
        maps, seen = self._halves(observed)
        return _points(seen), maps

    def _halves(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        maps, seen = observed[:, 0].split([2 * self.maps, observed.shape[-1] - 2 * self.maps], 1)
        return maps.unflatten(1, (2, self.maps)), seen

    def interpret(self, observed: Tensor) -> Tensor:
        """(B, 1, W) → (B, 1, 33 · 8 + 144), the token: centred landmarks, and the lifted pose minus the mean pose."""
        landmarks, maps = (part.to(self.lifter.enter.weight.dtype) for part in self.parts(observed))
        lifted = self.lifter.both_ways(landmarks, maps) - self.lifter.mean_pose
        return torch.cat([centred(landmarks).flatten(1), lifted], 1)[:, None]

    def pose(self, tokens: Tensor) -> Tensor:
        """The lifted pose in a token: (B, 1, W) → (B, 144) 6D numbers, root in the camera frame."""
        return tokens[:, 0, -POSE_NUMBERS:] + self.lifter.mean_pose

    def landmarks(self, pixels: Tensor) -> Landmarks:
        """The landmarks observed in (B, 3, 256, 256) normalised pixels."""
        return self.read(self.observe(pixels))

    @staticmethod
    def read(observed: Tensor) -> Landmarks:
        """The landmarks of observations (B, 1, W)."""
        return _landmarks(observed[:, 0])

    def glance(self, pixels: Tensor) -> Landmarks:
        """`landmarks` from a single pass over each unrotated crop: to find out where to crop."""
        return _landmarks(self._look(pixels)[0])

    def keypoints(self, pixels: Tensor) -> Tensor:
        """(B, 24, 3): SMPL's 2D joints in [-1, 1] over the crop, and their confidence (0: unknown to the network)."""
        landmarks = self.landmarks(pixels)
        found = torch.zeros(len(pixels), len(SMPL24), 3, device=pixels.device)
        for index, name in enumerate(LANDMARKS):
            if name in SMPL24.joints:
                joint = SMPL24.index(name)
                found[:, joint, :2] = landmarks.points[:, index, :2]
                found[:, joint, 2] = landmarks.visibility[:, index]
        return found

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Lifter):
            init.zeros_(module.mean_pose)
            init.zeros_(module.maps_mean)
            init.ones_(module.maps_scale)
            init.normal_(module.leave.weight, std=0.01)
            init.zeros_(module.leave.bias)


def _points(seen: Tensor) -> Tensor:
    """(B, … + 33 · 8 + 1) → (B, 33, 8)."""
    return seen[:, -1 - len(LANDMARKS) * NUMBERS : -1].unflatten(-1, (len(LANDMARKS), NUMBERS))


def _landmarks(seen: Tensor) -> Landmarks:
    found = _points(seen)
    return Landmarks(found[..., :3], found[..., 3], found[..., 5:], seen[:, -1])


def _mirrored(seen: Tensor) -> Tensor:
    """Maps the output for a mirrored crop back to the crop itself."""
    return torch.cat([mirrored(_points(seen)).flatten(1), seen[:, -1:]], 1)


def mirrored(landmarks: Tensor) -> Tensor:
    """Mirrors landmarks (B, 33, 8): swaps left and right, negates x."""
    points = landmarks[:, MIRRORED].clone()
    points[..., [0, 5]] *= -1  # in the crop and in metres
    return points


def _up(seen: Tensor) -> Tensor:
    """Unit vector from the hips to the shoulders in the crop, (B, 2), y down."""
    points = _points(seen)[..., :2]
    shoulders, hips = (
        (points[:, LANDMARKS.index(f"left_{name}")] + points[:, LANDMARKS.index(f"right_{name}")]) / 2
        for name in ("shoulder", "hip")
    )
    return F.normalize(shoulders - hips, dim=-1)


def _lean(seen: Tensor) -> Tensor:
    """Angle between the trunk and the crop's vertical, (B,) radians."""
    return torch.arccos((-_up(seen)[:, 1]).clamp(-1, 1))


def _turned_back(seen: Tensor, turns: int) -> Tensor:
    """Maps the output for crops rotated by `turns` quarter turns (`torch.rot90`) back to the crops themselves."""
    cos, sin = round(math.cos(turns * math.pi / 2)), round(math.sin(turns * math.pi / 2))
    turn = seen.new_tensor([[cos, sin], [-sin, cos]])
    points = _points(seen).clone()
    for first in (0, 5):  # places and metres
        points[..., first : first + 2] = points[..., first : first + 2] @ turn
    return torch.cat([points.flatten(1), seen[:, -1:]], 1)


def _worth(seen: Tensor, turns: int) -> Tensor:
    """Reliability of a view, (B,): score x mean visibility x how upright the trunk is in the rotated crop.

    Chosen on the sample's `hard` people and `3dpw/train`: the score alone prefers wrong views of upright people.
    """
    angle = turns * math.pi / 2
    up = _up(seen)
    upright = up[:, 0] * math.sin(angle) - up[:, 1] * math.cos(angle)
    return seen[:, -1] * _points(seen)[..., 3].mean(1) * upright


OUTPUTS = {"landmarks": 0, "score": 1, "world": 4}
"""The network outputs that are kept besides the maps; 2 and 3 are a person mask and heatmaps."""


def import_blazepose(params: "BlazePoseParams") -> BlazePose:
    """Builds the encoder around the fetched landmark network, with an untrained lifter.

    Raises:
        PoseRftError: the file was not fetched, or is not a pose landmark network.
    """
    config, weights = blazepose_config(params)
    encoder = BlazePose(config)
    encoder.network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return encoder.eval().requires_grad_(False)


def last_maps(graph: Graph, output: int) -> int:
    """Id of the tensor that feeds the convolution of an output."""
    by_output = {step["output"]: step for step in graph["steps"]}
    step = by_output[output]
    while step["op"] != "conv":
        step = by_output[step["inputs"][0]]
    return int(step["inputs"][0])


def maps_size(graph: Graph) -> int:
    """Number of values in the maps, the last output of a pruned graph."""
    return math.prod(next(step["shape"] for step in graph["steps"] if step["output"] == graph["outputs"][-1]))


def blazepose_config(params: "BlazePoseParams") -> tuple[BlazePoseConfig, Weights]:
    """The configuration with the fetched landmark network, and its weights; raises as `import_blazepose`."""
    source = pretrained.LANDMARKS[params.variant]
    path = pretrained.find(source)
    graph, weights = read_tflite(path)
    if graph["input_shape"] != [3, 256, 256] or len(graph["outputs"]) != 5:
        raise PoseRftError(f"{path} is no pose landmark network, expected 256 x 256 pictures and five outputs.")
    outputs = [graph["outputs"][index] for index in OUTPUTS.values()]
    graph, weights = prune(graph, weights, [*outputs, last_maps(graph, outputs[0])])
    config = BlazePoseConfig(
        variant=params.variant,
        origin=source.origin(),
        graph=graph,
        lifter_width=params.width,
        lifter_layers=params.layers,
    )
    return config, weights
