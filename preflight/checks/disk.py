"""Is there disk enough for what the run writes?

What: bytes of a checkpoint (adapters or weights, optimizer states, moving average) x those that are kept, and the images that
are sampled, against `hardware.disk_free_gib`, or else the free space of the output folder, if it is there.
Why: torch.save fails halfway, and the run with it, or the last good checkpoint was overwritten.
Fix: keep fewer checkpoints, save more rarely, or leave the optimizer's states out.
"""

from __future__ import annotations

from preflight.checkpoints import Checkpoint, Images, checkpoint, images, most
from preflight.checks.case import Answers, Case, Found
from preflight.files import free_bytes
from preflight.schedule import course
from preflight.units import GIB, count, size


def check(case: Case) -> Answers:
    spec = case.job.spec
    if spec.save is None:
        return
    one, run = checkpoint(case.job, case.model), course(spec)
    number, pictures = most(spec, run), images(case.job, run)
    needed = one.total * (number or 1) + (pictures.nbytes if pictures else 0)
    together = [f"{'' if run.exact or spec.save.keep else 'at most '}{count(number, 'checkpoint')}"] if number else []
    together += [_pictured(pictures)] if pictures else []
    message = f"A checkpoint is {_described(one, case)}"
    key = "save.keep" if spec.save.keep is not None else "save.every"
    many = len(together) > 1 or number != 1
    yield Found("note", f"{message}; {' and '.join(together)} take {size(needed)}." if number and many else f"{message}.", key)
    stated = spec.hardware.disk_free_gib
    free = int(stated * GIB) if stated is not None else free_bytes(spec.paths.output)
    if free is None or needed <= free:
        return
    what = f"{' and '.join(together)} take" if number and many else "One checkpoint takes"
    message = (
        f"{what} {size(needed)}, more than the {size(free)} that are free{'' if stated is not None else ' in the output folder'}."
    )
    sure = stated is not None and (run.exact or spec.save.keep is not None or not number)
    fitting = max(1, (free - (pictures.nbytes if pictures else 0)) // one.total)
    yield Found("error" if sure else "warning", message, key, fix=f"keep at most {fitting}" if one.total <= free else None)


def _pictured(pictures: Images) -> str:
    # kB of 1000 bytes, as the figure for one image is a round one
    each, together = pictures.each / 1e3, pictures.nbytes / 1e6
    return f"{count(pictures.number, 'sampled image')} of about {each:,.0f} kB ({together:,.0f} MB)"


def _described(one: Checkpoint, case: Case) -> str:
    lora, precision = case.job.spec.train.lora, case.job.spec.precision
    parts = [f"{size(one.weights)} of {f'adapters in {lora.dtype}' if lora else f'weights in {precision.weights}'}"]
    parts += [f"{size(one.optimizer)} of optimizer states"] if one.optimizer else []
    parts += [f"{size(one.ema)} of moving average"] if one.ema else []
    return parts[0] if len(parts) == 1 else f"{size(one.total)}: {' and '.join(parts)}"
