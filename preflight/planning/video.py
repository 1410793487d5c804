"""A clip's size in pixels and in patches of its latent."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass, replace

PRESETS = {
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "2k": (2560, 1440),
    "4k": (3840, 2160),
}
LARGEST_SIDE = 2**16

# an autoencoder of 8 × 8 pixels and 4 frames (Wan, HunyuanVideo and CogVideoX have it), and DiT's patches of 2 × 2
SPATIAL_STRIDE, TEMPORAL_STRIDE, PATCH = 8, 4, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Pixels and frames; `spatial`, `temporal` and `patch` say how many of them one patch covers."""

    width: int
    height: int
    frames: int
    fps: float
    spatial: int = SPATIAL_STRIDE
    temporal: int = TEMPORAL_STRIDE
    patch: int = PATCH

    @property
    def step(self) -> int:
        """Pixels along one side of a patch."""
        return self.spatial * self.patch

    @property
    def latent_frames(self) -> int:
        """Rounded down; a clip shorter than one has one all the same."""
        return max(1, self.frames // self.temporal)

    @property
    def patches(self) -> int:
        """Length of the sequence: latent height · width · frames, each rounded down."""
        return (self.height // self.step) * (self.width // self.step) * self.latent_frames

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    def smaller_sizes(self) -> Iterator[Clip]:
        """The same frames at smaller resolutions, largest first: heights in whole patches, the width to the nearest one."""
        for height in range((self.height - 1) // self.step * self.step, 0, -self.step):
            width = max(1, round(self.width * height / self.height / self.step)) * self.step
            yield replace(self, height=height, width=min(width, self.width // self.step * self.step))

    def with_latent_frames(self, latent_frames: int) -> Clip:
        """The longest clip, not longer than this one, that has so many."""
        return replace(self, frames=min(self.frames, latent_frames * self.temporal + self.temporal - 1))


def video_hours(patches: float, clip: Clip) -> float:
    """Hours of video that make up so many patches, cut into clips like this one."""
    return patches / clip.patches * clip.seconds / 3600


def size(text: str) -> tuple[int, int]:
    """(width, height) of a preset or WIDTHxHEIGHT, for argparse."""
    preset = PRESETS.get(text.strip().lower())
    if preset is not None:
        return preset
    sides = text.lower().replace("×", "x").replace("*", "x").split("x")
    try:
        width, height = (int(side) for side in sides)
    except ValueError:
        width = height = 0
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        shown = repr(text if len(text) <= 40 else text[:39] + "…")
        raise ArgumentTypeError(f"{shown} is not a resolution: {', '.join(PRESETS)} or WIDTHxHEIGHT up to {LARGEST_SIDE:,} pixels")
    return width, height
