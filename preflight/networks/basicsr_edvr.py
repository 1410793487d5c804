"""BasicSR's EDVR (basicsr/archs/edvr_arch.py, arch_util.py: DCNv2Pack)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preflight.networks.basicsr_common import ResidualBlockNoBN, conv3, split
from preflight.networks.basicsr_edvr_fusion import PredeblurModule, TSAFusion, doubled
from preflight.networks.basicsr_video import Reconstruction, VideoRestoration, enlarged, flattened, frame, halves, together
from preflight.networks.network import NotModelled, constructor_arguments
from preflight.tape.activation import absolute, in_place, sigmoid
from preflight.tape.deformable import deform_conv
from preflight.tape.module import Blocks, Checkpointing, Conv, Module
from preflight.tape.shaping import cat, chunk, sum_over
from preflight.tape.tensor import Parameter, Tensor

ARGUMENTS: Mapping[str, Any] = {
    "num_in_ch": 3,
    "num_out_ch": 3,
    "num_feat": 64,
    "num_frame": 5,
    "deformable_groups": 8,
    "num_extract_block": 5,
    "num_reconstruct_block": 10,
    "center_frame_idx": None,
    "hr_in": False,
    "with_predeblur": False,
    "with_tsa": True,
}


class DCNv2Pack(Module):
    """A deformable convolution whose offsets come from other features than those it samples."""

    def __init__(self, features: int, groups: int) -> None:
        self.weight, self.bias = Parameter((features, features, 3, 3)), Parameter((features,))
        self.conv_offset = conv3(features, groups * 3 * 9)

    def forward(self, x: Tensor, feat: Tensor) -> Tensor:
        out = self.conv_offset(feat)
        o1, o2, mask = chunk(out, 3, 1)
        offset = cat((o1, o2), 1)
        mask = sigmoid(mask)
        offset_absmean = sum_over(absolute(offset))
        out_ = deform_conv(x, offset, self.weight, self.bias, mask)
        del offset_absmean
        return out_


class PCDAlignment(Module):
    """Neighbours aligned to the reference on three levels, the smallest first, and once more on the largest."""

    def __init__(self, features: int, groups: int) -> None:
        # of the levels 3, 2 and 1
        self.offset_conv1 = [conv3(features * 2, features) for _ in range(3)]
        self.offset_conv2 = [conv3(features * (1 if i == 0 else 2), features) for i in range(3)]
        self.offset_conv3 = [conv3(features, features) for _ in range(2)]
        self.dcn_pack = [DCNv2Pack(features, groups) for _ in range(3)]
        self.feat_conv = [conv3(features * 2, features) for _ in range(2)]
        self.cas_offset_conv1, self.cas_offset_conv2 = conv3(features * 2, features), conv3(features, features)
        self.cas_dcnpack = DCNv2Pack(features, groups)

    def forward(self, nbr_feat_l: Sequence[Tensor], ref_feat_l: Sequence[Tensor]) -> Tensor:
        upsampled_offset: Tensor | None = None
        upsampled_feat: Tensor | None = None
        for i, (nbr, ref) in enumerate(zip(reversed(nbr_feat_l), reversed(ref_feat_l), strict=True)):
            offset = cat([nbr, ref], 1)
            offset = in_place(self.offset_conv1[i](offset))
            if upsampled_offset is None:
                offset = in_place(self.offset_conv2[i](offset))
            else:
                offset = in_place(self.offset_conv2[i](cat([offset, upsampled_offset], 1)))
                offset = in_place(self.offset_conv3[i - 1](offset))
            feat = self.dcn_pack[i](nbr, offset)
            if upsampled_feat is not None:
                feat = self.feat_conv[i - 1](cat([feat, upsampled_feat], 1))
            if i < 2:
                feat = in_place(feat)
                upsampled_offset = doubled(offset) * 2.0
                upsampled_feat = doubled(feat)
        offset = cat([feat, ref_feat_l[0]], 1)
        offset = in_place(self.cas_offset_conv2(in_place(self.cas_offset_conv1(offset))))
        return in_place(self.cas_dcnpack(feat, offset))


class EDVR(VideoRestoration):
    """The middle one of `num_frame` frames, made out of all."""

    one_frame_out = True

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        arguments = constructor_arguments(split(dims), ARGUMENTS, "BasicSR's EDVR")
        self.hr_in, self.with_tsa = arguments["hr_in"], arguments["with_tsa"]
        self.train_with({"scale": 1 if self.hr_in else 4, **dims})
        self.inputs = arguments["num_in_ch"]
        features, self.num_frame = arguments["num_feat"], arguments["num_frame"]
        self.predeblur = PredeblurModule(self.inputs, features, hr_in=self.hr_in) if arguments["with_predeblur"] else None
        if self.hr_in and self.predeblur is None:
            raise NotModelled("hr_in without with_predeblur, which leaves the image its size, is not modelled")
        self.conv_1x1 = Conv(features, features, (1, 1)) if self.predeblur is not None else None
        self.conv_first = conv3(self.inputs, features) if self.predeblur is None else None
        self.feature_extraction = Blocks(
            arguments["num_extract_block"], lambda _: ResidualBlockNoBN(features), Checkpointing(), extend=extend
        )
        self.conv_l2_1, self.conv_l2_2 = halves(features, features), conv3(features, features)
        self.conv_l3_1, self.conv_l3_2 = halves(features, features), conv3(features, features)
        self.pcd_align = PCDAlignment(features, arguments["deformable_groups"])
        self.fusion: Module = (
            TSAFusion(features, self.num_frame) if self.with_tsa else Conv(self.num_frame * features, features, (1, 1))
        )
        self.reconstruction_trunk = Blocks(
            arguments["num_reconstruct_block"], lambda _: ResidualBlockNoBN(features), Checkpointing(), extend=extend
        )
        self.reconstruction = Reconstruction(features)

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """The smallest of its levels is a quarter of the input, a sixteenth of the target."""
        del dims
        return 16

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, *_ = x.shape
        if frames != self.num_frame:
            raise NotModelled(f"the network takes {self.num_frame} frames, num_frame")
        x_center = together(x, 1)
        if self.predeblur is not None and self.conv_1x1 is not None:
            feat_l1 = self.conv_1x1(self.predeblur(flattened(x)))
        else:
            assert self.conv_first is not None
            feat_l1 = in_place(self.conv_first(flattened(x)))
        feat_l1 = self._extracted(feat_l1)
        feat_l2 = in_place(self.conv_l2_1(feat_l1))
        feat_l2 = in_place(self.conv_l2_2(feat_l2))
        feat_l3 = in_place(self.conv_l3_1(feat_l2))
        feat_l3 = in_place(self.conv_l3_2(feat_l3))
        levels = [feat.view(batch, frames, *feat.shape[1:]) for feat in (feat_l1, feat_l2, feat_l3)]
        del feat_l1, feat_l2, feat_l3

        ref_feat_l = [frame(level, clone=True) for level in levels]
        aligned = []
        for _ in range(frames):
            nbr_feat_l = [frame(level, clone=True) for level in levels]
            aligned.append(self.pcd_align(nbr_feat_l, ref_feat_l))
        aligned_feat = cat(aligned, 1)
        del aligned
        if self.with_tsa:
            aligned_feat = aligned_feat.view(batch, frames, *ref_feat_l[0].shape[1:])
        feat = self.fusion(aligned_feat)

        out = self._reconstructed(feat)
        out = self.reconstruction(out)
        base = x_center if self.hr_in else enlarged(x_center)
        out += base
        return out

    def _extracted(self, x: Tensor) -> Tensor:
        for block in self.feature_extraction.walk(x.tape):
            x = block(x)
        return x

    def _reconstructed(self, x: Tensor) -> Tensor:
        for block in self.reconstruction_trunk.walk(x.tape):
            x = block(x)
        return x


NETWORK = EDVR
