"""A reader of BVH files."""

import numpy as np
from scipy.spatial.transform import Rotation


def read_bvh(text):
    """({joint: (F, 3) metres}, seconds a frame) of a BVH file, as a viewer computes it."""
    head, _, tail = text.partition("MOTION\n")
    lines = tail.splitlines()
    numbers = np.array([[float(v) for v in line.split()] for line in lines[2:]])
    frames, column, stack, found = len(numbers), 0, [], {}
    name, end = "", False
    for words in map(str.split, head.splitlines()[1:]):
        if words[0] in ("ROOT", "JOINT", "End"):
            name, end = words[1], words[0] == "End"
        elif words[0] == "OFFSET":
            offset = np.array(words[1:], float)
            turn, place = stack[-1] if stack else (np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3)))
            stack.append((turn, place + turn @ offset))
        elif words[0] == "CHANNELS":
            turn, place = stack.pop()
            for channel in words[2:]:
                values, column = numbers[:, column], column + 1
                if channel.endswith("position"):
                    place = place + values[:, None] * np.eye(3)["XYZ".index(channel[0])]
                else:
                    turn = turn @ Rotation.from_euler(channel[0].lower(), values[:, None], degrees=True).as_matrix()
            stack.append((turn, place))
            found[name] = place / 100
        elif words[0] == "}":
            stack.pop()
    assert column == numbers.shape[1] and int(lines[0].split()[1]) == frames and not (stack or not end)
    return found, float(lines[1].split()[2])
