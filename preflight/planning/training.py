"""Training compute of a large model, scaled up from a small one whose compute is known.

Source: M. Plappert, "Under the hood: how OpenAI's Sora model works" (Factorial Funds, 2024), which scales DiT (Peebles and Xie,
arXiv 2212.09748) up to a video model: compute grows with the parameters, the data, and the latent frames of what is video.
"""

from __future__ import annotations

REFERENCE_FLOP = 1e21  # DiT-XL, 675 million parameters, on 3 million batches of 256 images
MODEL_SCALE = 30.0  # 20 billion parameters over 675 million
DATA_SCALE = (4.0, 10.0)  # low and high: a set 10 to 100 times as large, whose samples are repeated less
VIDEO_SHARE = 0.5  # half of the data is video
MONTH_DAYS = 30


def latent_frames(seconds: float, fps: float, compression: float) -> float:
    """Latent frames of a clip: 60 s at 24 fps, compressed 8 times in time, are 180."""
    return seconds * fps / compression


def training_flop(reference_flop: float, model_scale: float, data_scale: float, frames: float, video_share: float) -> float:
    """Reference · model · data · frames, the frames for the video's share of the data only.

    Stills are not added: beside 180 frames a clip they would be half of a percent.
    """
    return reference_flop * model_scale * data_scale * frames * video_share


def gpu_months(flop: float, tflops: float, utilisation: float = 1.0, days: float = MONTH_DAYS) -> float:
    """GPUs of `tflops` TFLOP/s that spend `flop` in a month of so many days, at this share of their peak."""
    return flop / (tflops * 1e12 * utilisation * days * 24 * 3600)
