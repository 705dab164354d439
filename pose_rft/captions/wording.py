"""Alternative phrases for each posecode: this project's own, with several per fact so that captions vary.

Sides come from the posecodes, and `mirror_caption` swaps them in any text.
"""

from collections.abc import Mapping, Sequence

Phrases = Sequence[str]

SUBJECTS: Phrases = ("The person", "Someone", "This person", "The figure", "A person", "They")
PLURAL_SUBJECTS = frozenset({"They"})

# {be} becomes is/are; {s} and {es} become the verb ending that agrees with the subject.
POSTURE: Mapping[str, Phrases] = {
    "standing": ("{be} standing", "stand{s}", "{be} on their feet"),
    "bending": ("{be} bent over at the waist", "bend{s} over", "stand{s} bent far forward"),
    "lunging": ("{be} in a lunge", "lunge{s}", "{be} in a deep step"),
    "squatting": ("{be} squatting", "squat{s}", "crouch{es}"),
    "kneeling": ("{be} kneeling", "kneel{s}", "{be} down on the knees"),
    "sitting": ("{be} sitting", "sit{s}", "{be} seated"),
    "on all fours": ("{be} on all fours", "crawl{s} on hands and knees", "{be} on hands and knees"),
    "upside down": ("{be} upside down", "{be} turned head down"),
    "other": ("hold{s} an unusual pose", "{be} off balance", "{be} caught in motion"),
    "lying back": ("lie{s} on the back", "{be} lying face up", "{be} lying on the back"),
    "lying belly": ("lie{s} on the belly", "{be} lying face down", "{be} lying on the stomach"),
    "lying left side": ("lie{s} on the left side", "{be} lying on the left side"),
    "lying right side": ("lie{s} on the right side", "{be} lying on the right side"),
}

DEGREE: Mapping[str, Phrases] = {
    "slight": ("slightly", "a little"),
    "clear": ("", "clearly"),
    "strong": ("far", "strongly"),
}
LEAN: Mapping[str, Phrases] = {
    "forward": ("leaning {degree} forward", "the torso tipped {degree} forward"),
    "backward": ("leaning {degree} back", "the torso tipped {degree} backward"),
    "left": ("leaning {degree} to the left", "the torso tilted {degree} to the left"),
    "right": ("leaning {degree} to the right", "the torso tilted {degree} to the right"),
}
TWIST: Phrases = ("the chest turned {degree} to the {side}", "the upper body twisted {degree} to the {side}")
HEAD: Mapping[str, Phrases] = {
    "turn left": ("the head turned {degree} to the left", "looking {degree} left"),
    "turn right": ("the head turned {degree} to the right", "looking {degree} right"),
    "nod up": ("looking {degree} up", "the face lifted {degree}"),
    "nod down": ("looking {degree} down", "the head bowed {degree}"),
    "tilt left": ("the head tilted {degree} to the left", "the left ear {degree} toward the shoulder"),
    "tilt right": ("the head tilted {degree} to the right", "the right ear {degree} toward the shoulder"),
}

# Words for the parts of a direction, and for cells that have a better name than the combination of their parts.
AXIS: Mapping[str, Phrases] = {
    "up": ("up", "upward"),
    "down": ("down", "downward"),
    "out": ("out to the side", "sideways", "outward"),
    "in": ("inward", "across the body"),
    "front": ("forward", "to the front"),
    "back": ("backward", "behind"),
}
ARM_CELL: Mapping[str, Phrases] = {
    "up": ("straight up", "overhead", "vertically up"),
    "out": ("straight out to the side", "out to the side at shoulder height", "sideways like a T"),
    "front": ("straight forward", "horizontally to the front", "straight ahead"),
    "down": ("straight down", "down by the side", "down along the body"),
    "back": ("straight back", "behind the body"),
    "in": ("across the chest", "across the body"),
    "down out": ("down and away from the body", "diagonally down to the side"),
    "up out": ("diagonally up to the side", "up and out to the side"),
    "in front": ("forward across the chest", "forward and inward"),
    "out front": ("diagonally forward and outward", "forward and out to the side"),
    "in back": ("behind the back", "backward and inward"),
}
LEG_CELL: Mapping[str, Phrases] = {
    "down": ("straight down", "vertical"),
    "front": ("straight forward", "horizontally forward"),
    "out": ("straight out to the side", "horizontally sideways"),
    "back": ("straight back", "backward"),
    "out front": ("forward and out to the side", "diagonally forward and outward"),
}

# The first phrase of `straight` is skipped after a direction that already says "straight".
ELBOW: Mapping[str, Phrases] = {
    "straight": ("straight", "fully extended"),
    "slightly bent": ("slightly bent", "a bit bent"),
    "half bent": ("bent halfway", "loosely bent"),
    "square": ("bent at a right angle", "bent to ninety degrees"),
    "sharply bent": ("sharply bent", "strongly bent"),
    "folded": ("folded tight", "completely bent"),
}
KNEE: Mapping[str, Phrases] = {
    **ELBOW,
    "folded": ("folded tight", "fully bent"),
}

TOUCH: Phrases = ("on {place}", "touching {place}", "resting on {place}")
NEAR: Phrases = ("near {place}", "close to {place}", "next to {place}")
HAND_LEVEL: Mapping[str, Phrases] = {
    "above head": ("above the head", "higher than the head"),
    "head level": ("at head height", "level with the head"),
    "shoulder level": ("at shoulder height", "level with the shoulders"),
    "hip level": ("at hip height", "level with the hips"),
    "knee level": ("at knee height", "level with the knees"),
}

HANDS: Mapping[str, Phrases] = {
    "gap together": ("the hands meet", "both hands are together", "the hands touch each other"),
    "gap close": ("the hands are close to each other", "only a short gap parts the hands"),
    "gap shoulder width": ("the hands are shoulder width apart", "the hands are about as far apart as the shoulders"),
    "gap far apart": ("the hands are far apart", "the hands are spread wide"),
    "higher": ("the {side} hand is higher than the {other}", "the {side} hand is above the {other} one"),
}
FEET: Mapping[str, Phrases] = {
    "crossed": ("the ankles are crossed, {side} in front", "the {side} ankle crosses before the {other}"),
    "gap together": ("the feet are together", "both feet are close together"),
    "gap hip width": ("the feet are hip width apart",),
    "gap wide": ("the feet are wide apart", "the legs are spread"),
    "gap very wide": ("the legs are spread very wide", "the feet are very far apart"),
    "step some": ("the {side} foot is ahead of the {other}", "the {side} foot is a step in front"),
    "step far": ("the {side} foot is far ahead of the {other}", "a long step puts the {side} foot in front"),
    "higher some": ("the {side} foot is a bit higher than the {other}", "the {side} foot is lifted"),
    "higher far": ("the {side} foot is raised high", "the {side} foot is far above the {other}"),
}
KNEES: Mapping[str, Phrases] = {
    "gap wide": ("the knees are wide apart", "the knees point apart"),
    "gap together": ("the knees are together", "the knees touch"),
}
