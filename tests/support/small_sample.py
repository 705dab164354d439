"""The smallest sample that has a picture, a video or a pose of everything."""

from pose_rft.sample.plan import (
    LlavaSample,
    PictureSample,
    PoseScriptSample,
    Pw3dSample,
    SampleParams,
    VideoSample,
)


def small_sample(size: int, train: int, val: int, poses: int, dialogues: int) -> SampleParams:
    """Pictures of `size` px: `train` and `val` of COCO, MPII and BEDLAM, a frame or two of each video set; `poses` of
    PoseScript, half with human captions and a fifth as many to validate and to test."""
    pictures = PictureSample(size=size, train=train, val=val)
    return SampleParams(
        processes=1,
        h36m=VideoSample(size=size, train_sequences=1, test_sequences=1, frames=1, test_frames=1),
        mpi_inf_3dhp=VideoSample(size=size, train_sequences=1, test_sequences=0, frames=1, test_frames=1),
        coco=pictures,
        mpii=pictures,
        bedlam=pictures,
        pw3d=Pw3dSample(size=size, sequences=1, frames=2),
        posescript=PoseScriptSample(train=poses, train_human=poses // 2, val=poses // 5, test=poses // 5),
        llava_instruct=LlavaSample(dialogues=dialogues),
    )
