"""EDVR's deblurring in front and its attention over frames and places (basicsr/archs/edvr_arch.py)."""

from __future__ import annotations

from preflight.networks.basicsr_common import ResidualBlockNoBN, conv3
from preflight.networks.basicsr_video import flattened, frame, halves
from preflight.networks.diffsr_common import interpolate
from preflight.tape.activation import in_place, sigmoid
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import avg_pool, cat, max_pool, sum_over
from preflight.tape.tensor import Tensor


class PredeblurModule(Module):
    def __init__(self, inputs: int, features: int, *, hr_in: bool) -> None:
        self.conv_first = conv3(inputs, features)
        self.stride_conv_hr = [halves(features, features) for _ in range(2 if hr_in else 0)]
        self.stride_conv_l2, self.stride_conv_l3 = halves(features, features), halves(features, features)
        self.resblock_l3 = ResidualBlockNoBN(features)
        self.resblock_l2_1, self.resblock_l2_2 = ResidualBlockNoBN(features), ResidualBlockNoBN(features)
        self.resblock_l1 = [ResidualBlockNoBN(features) for _ in range(5)]

    def forward(self, x: Tensor) -> Tensor:
        feat_l1 = in_place(self.conv_first(x))
        for conv in self.stride_conv_hr:
            feat_l1 = in_place(conv(feat_l1))
        feat_l2 = in_place(self.stride_conv_l2(feat_l1))
        feat_l3 = in_place(self.stride_conv_l3(feat_l2))
        feat_l3 = doubled(self.resblock_l3(feat_l3))
        feat_l2 = self.resblock_l2_1(feat_l2) + feat_l3
        feat_l2 = doubled(self.resblock_l2_2(feat_l2))
        for block in self.resblock_l1[:2]:
            feat_l1 = block(feat_l1)
        feat_l1 = feat_l1 + feat_l2
        for block in self.resblock_l1[2:]:
            feat_l1 = block(feat_l1)
        return feat_l1


class TSAFusion(Module):
    def __init__(self, features: int, frames: int) -> None:
        self.temporal_attn1, self.temporal_attn2 = conv3(features, features), conv3(features, features)
        self.feat_fusion = one(frames * features, features)
        self.spatial_attn1, self.spatial_attn2 = one(frames * features, features), one(features * 2, features)
        self.spatial_attn3, self.spatial_attn4 = conv3(features, features), one(features, features)
        self.spatial_attn5, self.spatial_attn_l1 = conv3(features, features), one(features, features)
        self.spatial_attn_l2, self.spatial_attn_l3 = conv3(features * 2, features), conv3(features, features)
        self.spatial_attn_add1, self.spatial_attn_add2 = one(features, features), one(features, features)

    def forward(self, aligned_feat: Tensor) -> Tensor:
        aligned_feat = self._weighed(aligned_feat)
        feat = in_place(self.feat_fusion(aligned_feat))

        attn = in_place(self.spatial_attn1(aligned_feat))
        attn_max, attn_avg = max_pool(attn, 2), avg_pool(attn, 2)
        attn = in_place(self.spatial_attn2(cat([attn_max, attn_avg], 1)))
        attn_level = in_place(self.spatial_attn_l1(attn))
        attn_max = max_pool(attn_level, 2)
        attn_avg = avg_pool(attn_level, 2)
        attn_level = in_place(self.spatial_attn_l2(cat([attn_max, attn_avg], 1)))
        attn_level = in_place(self.spatial_attn_l3(attn_level))
        attn_level = doubled(attn_level)
        attn = in_place(self.spatial_attn3(attn)) + attn_level
        attn = in_place(self.spatial_attn4(attn))
        attn = doubled(attn)
        attn = self.spatial_attn5(attn)
        attn_add = self.spatial_attn_add2(in_place(self.spatial_attn_add1(attn)))
        attn = sigmoid(attn)
        return feat * attn * 2.0 + attn_add

    def _weighed(self, aligned_feat: Tensor) -> Tensor:
        """Each frame's features times how much they are like the middle one's."""
        batch, frames, channels, height, width = aligned_feat.shape
        embedding_ref = self.temporal_attn1(frame(aligned_feat, clone=True))
        embedding = self.temporal_attn2(flattened(aligned_feat))
        embedding = embedding.view(batch, frames, channels, height, width)
        corr_l = []
        for _ in range(frames):
            emb_neighbor = frame(embedding)
            corr = sum_over(emb_neighbor * embedding_ref, batch, 1, height, width)
            corr_l.append(corr)
        corr_prob = sigmoid(cat(corr_l, 1))
        corr_prob = sum_over(corr_prob, batch, frames * channels, height, width)  # expanded, copied
        return aligned_feat.view(batch, frames * channels, height, width) * corr_prob


def one(inputs: int, outputs: int) -> Conv:
    return Conv(inputs, outputs, (1, 1))


def doubled(x: Tensor) -> Tensor:
    return interpolate(x, x.shape[2] * 2, x.shape[3] * 2)
