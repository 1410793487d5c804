"""The names that trainers and public data sets give the columns of an index.

Among them DiffSynth-Studio (video, image, prompt), musubi-tuner (video_path, image_path, caption), VideoX-Fun (file_path, text,
type), Open-Sora (path, text, num_frames, fps, height, width, resolution), OpenVid (video, caption, frame, fps, seconds), Hugging
Face's folders (file_name, text) and WebVid (name, duration).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: What a column says, each with its names in the order of preference; the first that is not empty counts.
NAMES: Mapping[str, tuple[str, ...]] = {
    "media": (
        "video", "video_path", "video_file", "image", "image_path", "image_file", "img_path", "file_path", "filepath", "file_name",
        "filename", "media_path", "media", "clip_path", "clip", "path", "file", "video_name", "name", "url",
    ),
    "kind": ("media_type", "type", "modality", "file_type"),
    "caption": (
        "caption", "prompt", "text", "captions", "description", "text_prompt", "caption_text", "text_en", "long_caption",
        "dense_caption", "short_caption",
    ),
    "category": ("category", "categories", "category_name", "label", "class", "class_name", "topic", "genre"),
    "width": ("width", "video_width", "image_width", "w"),
    "height": ("height", "video_height", "image_height", "h"),
    "resolution": ("resolution", "size", "video_size"),
    "duration": (
        "duration", "seconds", "duration_sec", "duration_seconds", "duration_s", "video_duration", "clip_duration",
        "length_seconds",
    ),
    "frames": ("num_frames", "frames", "frame_count", "n_frames", "nb_frames", "frame_num", "frame", "number_of_frames"),
    "fps": ("fps", "frame_rate", "framerate", "video_fps", "native_fps"),
}  # fmt: skip
#: Without one of these there is nothing that could be said of a sample.
NEEDED = ("media", "caption")


def plain(name: object) -> str:
    """`name` as names are compared: lower case, with underscores."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def columns(names: Iterable[object]) -> dict[str, tuple[str, ...]]:
    """For each kind of column the ones among `names` that say it, as they are spelt there, best first."""
    spelt = {plain(name): str(name) for name in names}
    found = {field: tuple(spelt[name] for name in known if name in spelt) for field, known in NAMES.items()}
    return {field: there for field, there in found.items() if there}
