"""What a BasicSR config for videos says beside one for images: how many frames a clip has, and what each network asks of it."""

from __future__ import annotations

from preflight.adapters.draft import Draft
from preflight.finding import ConfigError

NETWORKS = {"BasicVSR": "basicsr-basicvsr", "BasicVSRPlusPlus": "basicsr-basicvsrpp", "EDVR": "basicsr-edvr"}
#: models/*.py whose optimize_parameters is SRModel's; those that freeze a part at first train everything after it.
MODELS = ("VideoRecurrentModel", "EDVRModel", "VideoBaseModel")
SEPTUPLET = "Vimeo90KRecurrentDataset"  # data/vimeo90k_dataset.py: seven frames whatever num_frame says
DATASETS = ("REDSDataset", "REDSRecurrentDataset", "Vimeo90KDataset", SEPTUPLET)
#: archs/basicvsrpp_arch.py: compute_flow's input has at least so many pixels a side.
LEAST = 64


def is_video(run: Draft) -> bool:
    return run.get("_type") in NETWORKS


def frames(run: Draft) -> None:
    """Settle `data.frames`. Raises ConfigError for a data set whose clips' length is not known here."""
    kind, key = run.get("_dataset"), "datasets.train.type"
    if kind not in DATASETS:
        message = f"Cannot judge: the clips of {key} {kind} are not modelled yet, only those of {', '.join(DATASETS)}."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=key), *run.findings)
    if kind == SEPTUPLET:
        run.put("data.frames", 14 if run.get("_flipped") else 7, like="_flipped" if "_flipped" in run.settled else "_dataset")
    elif "_frames" in run.settled:
        run.put("data.frames", run.get("_frames"), like="_frames")
    else:
        message = f"datasets.train.num_frame is missing, and {kind} has no default for it; expected the frames of a clip."
        run.findings.append(run.document.finding("missing-key", "error", message, key="datasets.train"))
    clip = run.get("data.frames")
    if clip is not None and clip < 1:
        message = f"datasets.train.num_frame is {clip}; expected at least one frame, which only {SEPTUPLET} sets itself."
        run.note("error", "invalid-value", message, at="data.frames")
    if kind == SEPTUPLET and run.get("_flipped") and run.get("_type") == "BasicVSRPlusPlus":
        run.put("model.dims.mirrored", True, like="_flipped")


def free(run: Draft) -> bool:
    """Whether the number of frames can be changed by one key."""
    return bool(run.get("_dataset") == "REDSRecurrentDataset" and run.get("_type") != "EDVR")


def factor(run: Draft) -> tuple[int, str]:
    """How many times the network enlarges its input, and the argument that says so."""
    if run.get("_type") == "BasicVSRPlusPlus":
        return (4 if run.get("model.dims.is_low_res_input", True) else 1), "is_low_res_input"
    if run.get("_type") == "EDVR":
        return (1 if run.get("model.dims.hr_in", False) else 4), "hr_in"
    return 4, "type"


def arguments(run: Draft) -> None:
    """EDVR's configs as published carry `ema_decay` among the network's arguments, where its constructor stops at it."""
    decay = run.settled.pop("model.dims.ema_decay", None)
    run.origins.pop("model.dims.ema_decay", None)
    if isinstance(decay, int | float):
        message = (
            f"network_g.ema_decay is no argument of {run.get('_type')}, which stops at it before the first step; judged as if it"
            " stood in train.ema_decay."
        )
        fix = "move it to train.ema_decay"
        run.findings.append(run.document.finding("unread-argument", "warning", message, key="network_g.ema_decay", fix=fix))
        run.settled["_decay"], run.origins["_decay"] = decay, "network_g.ema_decay"


def nonsense(run: Draft) -> None:
    """Sizes that the network refuses."""
    scale, side, clip = run.get("_scale"), run.get("data.height"), run.get("data.frames")
    kind = run.get("_type")
    wanted = run.get("model.dims.num_frame", 5) if kind == "EDVR" else clip
    if clip != wanted:
        message = f"EDVR takes {wanted} frames (network_g.num_frame), but the clips have {clip}."
        run.note("error", "factor-mismatch", message, at="data.frames", fix=f"datasets.train.num_frame: {wanted}")
    if kind == "BasicVSRPlusPlus" and side // 4 < LEAST:
        message = f"gt_size {side} makes low-resolution inputs of {side // 4} pixels, and BasicVSR++ takes at least {LEAST}."
        run.note("error", "invalid-value", message, at="data.height", fix=f"gt_size: {LEAST * 4}")
    step = 16 if kind == "EDVR" and run.get("model.dims.hr_in", False) else 4
    if kind == "EDVR" and side // scale % step:
        message = f"gt_size {side} makes inputs of {side // scale} pixels, which EDVR takes only in multiples of {step}."
        run.note("error", "uneven-grid", message, at="data.height")
