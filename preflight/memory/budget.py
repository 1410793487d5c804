"""Everything one GPU needs, phase by phase, and whether that is within the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from preflight import catalog
from preflight.job import Job
from preflight.memory import experts, overhead
from preflight.memory.distillation import Moment, Role, Roles, moments, roles
from preflight.memory.encoders import encoders_bytes
from preflight.memory.model import Model
from preflight.memory.optimizer import Optimizer, optimizer
from preflight.memory.rank import Rank
from preflight.memory.reserve import Layout, can_lay_out
from preflight.memory.sharding import rank
from preflight.memory.step import walk
from preflight.networks.network import Shape
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Size, rounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """Bytes on the GPU between steps, by what they are; `teacher` and `critic` are weights beside the network's."""

    network: int = 0
    teacher: int = 0
    critic: int = 0
    adapters: int = 0
    optimizer: int = 0
    encoders: Mapping[str, int] = field(default_factory=dict)
    ema: int = 0
    buckets: int = 0

    @property
    def weights(self) -> int:
        """Networks, encoders and EMA copy."""
        return self.network + self.teacher + self.critic + sum(self.encoders.values()) + self.ema

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.optimizer + self.buckets


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """The worst moment of a phase: `allocated` is the sum of the parts above resident and the resident ones.

    `workspace` is what kernels hold for themselves beyond that, `weights` those that are there in this phase only. `whole`: it is
    weights alone, moved one after another into memory of their own, so nothing is lost between blocks. `early`: no optimizer
    states are there yet.
    """

    allocated: Size
    gradients: Size = 0
    optimizer: Size = 0
    activations: Size = 0
    workspace: Size = 0
    weights: int = 0
    whole: bool = False
    early: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Bytes per GPU; sizes are numpy arrays where the shape was.

    `allocated` is what torch's allocator hands out at the step's peak; `reserved` adds fragmentation and kernel workspaces.
    `kept_gradients` are those that the trainer leaves in place between steps, `away` what of the step waits in host memory.
    `activations` is the highest sum of saved tensors and transients in the step's forward and backward pass, `pixels` those of the
    batch in it, which stay until the next one; `gathered` those
    weights of other ranks in it that the walk does not gather itself. `beside` are the networks of a distillation. `layout` is
    where its blocks lie in the allocator's segments.
    """

    resident: Resident
    step: Peak
    activations: Size
    cublas: int
    kept_gradients: Size
    away: Size = 0
    pixels: Size = 0
    gathered: int = 0
    beside: Roles = field(default_factory=Roles)
    layout: Layout | None = None

    @property
    def allocated(self) -> Size:
        return self.step.allocated

    @property
    def reserved(self) -> Size:
        return self.reserve(self.step)

    def least(self, peak: Peak) -> Size:
        """What it takes at the very least, found without laying anything out."""
        return peak.allocated + peak.workspace + self.cublas

    def reserve(self, peak: Peak) -> Size:
        """What the caching allocator takes from the card for a phase of this peak.

        A step of one shape is laid out request by request. Elsewhere gaps are a published part of what is handed out: of all of it,
        or where weights stay on the card, of what comes and goes beside them.
        """
        layout = self.layout
        if layout is None:
            return (peak.allocated if peak.whole else fragmented(peak.allocated)) + peak.workspace + self.cublas
        if peak is self.step and layout.walked:
            return max(layout.steady, self.least(peak))
        resident = self.resident.weights + self.resident.adapters if peak.early else self.resident.total
        standing = layout.weights if peak.early else layout.resting
        moving = peak.allocated - resident
        part = 0.0 if peak.whole else overhead.FRAGMENTATION_MOST if peak is self.step else overhead.FRAGMENTATION
        return largest(standing + moving + gaps(largest(moving, 0), part) + peak.workspace, self.least(peak))


def fragmented(allocated: Size) -> Size:
    """`allocated` with what the caching allocator cannot hand out between its blocks."""
    return allocated + gaps(allocated, overhead.FRAGMENTATION)


def gaps(allocated: Size, part: float) -> Size:
    """`part` of what is handed out, in whole bytes."""
    return (allocated * int(part * 100)) // 100


def budget(job: Job, model: Model, shape: Shape | None = None) -> Budget:
    """The memory of the job's training step at `shape` (its own when None).

    Raises ConfigError for an optimizer or a form of parallelism that is not modelled.
    """
    share, beside = rank(job, model), roles(job)
    states = optimizer(job, share)
    resident = residents(job, model, states, beside)
    step = walk(job, model, shape)
    gathered = _gathered(job, model, share)
    found = list(moments(job, model, beside, step, states, shape or job.shape))
    worst = _worst([_peak(resident, moment, gathered) for moment in found])
    inside = resident.total + gathered + largest(*(moment.inside for moment in found))
    return Budget(
        resident=resident,
        step=replace(worst, workspace=largest(worst.allocated, inside) - worst.allocated),
        activations=largest(*(moment.activations for moment in found)) + gathered,
        cublas=overhead.CUBLAS_HANDLES * overhead.cublas_workspace(job.gpu),
        away=step.away,
        pixels=step.pixels,
        gathered=gathered,
        kept_gradients=found[-1].gradients if _keeps_gradients(job) else 0,
        beside=beside,
        layout=Layout(job=job, model=model, shape=shape or job.shape, resident=resident, states=states, step=step)
        if can_lay_out(job)
        else None,
    )


def _keeps_gradients(job: Job) -> bool:
    """Whether gradients outlive the step: FSDP 1 drops its flat ones only as the next forward pass begins, whatever zero_grad does.

    torch/distributed/fsdp/_flat_param.py: _reset_flat_param_grad_info_if_needed, where the optimizer has the original parameters.
    """
    parallel = job.spec.parallel
    flat = (
        parallel.strategy == "fsdp" and parallel.fsdp_version == 1 and parallel.use_orig_params and not job.spec.offload.parameters
    )
    return flat or job.spec.train.zero_grad == "before-backward"


def residents(job: Job, model: Model, states: Optimizer, beside: Roles | None = None) -> Resident:
    """What stays on the GPU between steps, after sharding and offload."""
    spec, share = job.spec, rank(job, model)
    trained, frozen = share.trained, share.frozen
    swapped = min(spec.offload.blocks * share.block, frozen)
    network = frozen - swapped if model.adapters else frozen - swapped + trained
    updated = experts.trained(spec)
    distillation, beside = spec.train.distillation, beside or roles(job)
    critic = beside.critic
    stays = distillation is not None and not distillation.cached
    kept = (states.states + states.master) * updated
    return Resident(
        network=network * experts.on_gpu(spec),
        teacher=_weights(beside.teacher) if stays else 0,
        critic=_weights(critic),
        adapters=trained * updated if model.adapters else 0,
        optimizer=0 if spec.offload.optimizer else kept + (critic.states.states + critic.states.master if critic else 0),
        encoders=_encoders(job),
        ema=_averaged(spec.train.ema_dtype, model) * updated if spec.train.ema else 0,
        buckets=share.buffers * updated,
    )


def _averaged(dtype: str | None, model: Model) -> int:
    """The copy that follows the trained weights: in their dtype, or in one of its own."""
    if dtype is None:
        return model.trainable_bytes
    return sum(int(rounded(p.numel * BYTES[dtype])) * p.copies for p in model.trainable)


def _encoders(job: Job) -> dict[str, int]:
    """Frozen components that stay on the GPU: those used in every step, neither cached nor offloaded; a VAE that never leaves."""
    data, found = job.spec.data, {}
    if data.text == "online":
        found.update(encoders_bytes(job))
    if (data.latents == "online" or data.vae_resident) and job.vae is not None:
        found[job.vae.id] = component_bytes(job, job.vae)
    return found


def component_bytes(job: Job, vae: catalog.Component) -> int:
    """The VAE's weights in the dtype the run loads it in."""
    return vae.parameters * BYTES[job.spec.precision.vae or vae.dtype]


MOVED_BLOCKS = 2  # the block at work and the one that is being fetched behind it


def _gathered(job: Job, model: Model, share: Rank) -> int:
    """Weights that a rank holds only while it computes with them; what FSDP gathers is in the walk already."""
    spec = job.spec
    moved = spec.offload.blocks or (spec.offload.parameters and spec.parallel.strategy != "fsdp")
    return share.gathered or (MOVED_BLOCKS * model.block_bytes if moved else 0)


def _weights(role: Role | None) -> int:
    return role.weights if role is not None else 0


def _peak(resident: Resident, moment: Moment, gathered: int) -> Peak:
    away = gathered if moment.update is None else 0
    update = moment.update or 0
    return Peak(
        allocated=resident.total + moment.live + away,
        gradients=moment.gradients,
        optimizer=update,
        activations=moment.live - moment.gradients - update + away,
    )


def _worst(peaks: list[Peak]) -> Peak:
    if all(isinstance(peak.allocated, int) for peak in peaks):
        return max(peaks, key=lambda peak: peak.allocated)
    return Peak(allocated=largest(*(peak.allocated for peak in peaks)))


def largest(*sizes: Size) -> Size:
    """The largest of the sizes, element by element where some are arrays."""
    if all(isinstance(size, int) for size in sizes):
        return max(sizes)
    import numpy as np

    return np.maximum.reduce(np.broadcast_arrays(*sizes))
