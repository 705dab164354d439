"""Prefect flows over DVC. DVC processes started here use a private hash cache and keep group folders group-writable."""

import os
import sys

from flows import private_dvc
from pose_rft.errors import PoseRftError
from pose_rft.io.shared import share_with_group

try:
    private_dvc.settle()
except PoseRftError as error:
    sys.exit(f"error: {error}")
share_with_group(os.environ.get("POSE_RFT_SCRATCH"), os.environ.get("POSE_RFT_CACHE"))
