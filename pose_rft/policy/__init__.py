"""The policy: PoseLlava, its processor, sampling and scoring."""

from transformers.utils import logging

logging.disable_progress_bar()  # "Loading weights" of tiny models would drown the progress of the stages
