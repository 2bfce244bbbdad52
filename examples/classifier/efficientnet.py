"""EfficientNet-Lite0 in plain torch, with the parameter names of the published weights.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); Lite0 is its variant
without squeeze-and-excitation, with ReLU6. Input: float (n, 3, 224, 224), (pixel - 127) / 128; output: (n, 1000).
"""

import torch
from torch import nn
from torch.nn import functional

#: Per stage: blocks, kernel, stride of the first block, expansion, channels out.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does ("SAME"): the odd pixel goes to the right and the bottom."""

    def forward(self, x):
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
        return super().forward(functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Widen, filter each channel, narrow; with a shortcut where the shapes allow it."""

    def __init__(self, before, after, kernel, stride, expansion):
        super().__init__()
        wide = before * expansion
        self.shortcut = stride == 1 and before == after
        if expansion > 1:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = norm(after)

    def forward(self, x):
        wide = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        filtered = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow = self._bn2(self._project_conv(filtered))
        return narrow + x if self.shortcut else narrow


class EfficientNetLite0(nn.Module):
    """4.65 million parameters, 1,000 classes of ImageNet."""

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = norm(32)
        blocks, before = [], 32
        for count, kernel, stride, expansion, after in STAGES:
            for number in range(count):
                blocks.append(Block(before, after, kernel, stride if number == 0 else 1, expansion))
                before = after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(before, 1280, 1, bias=False)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        features = self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))
        head = functional.relu6(self._bn1(self._conv_head(features)))
        return self._fc(torch.flatten(functional.adaptive_avg_pool2d(head, 1), 1))
