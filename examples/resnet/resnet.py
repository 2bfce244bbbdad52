"""Residual networks in plain torch, with torchvision's parameter names, so that its weights fit.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016). Input: float (n, 3, 224, 224), normalised by the
mean and deviation of ImageNet; output: (n, classes).
"""

import re

import torch
from torch import nn
from torch.nn import functional


class Basic(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(before, channels, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """Narrow, filter, widen, and a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, before, channels, stride):
        super().__init__()
        after = channels * self.expansion
        self.conv1 = nn.Conv2d(before, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = shortcut(before, after, stride)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(before, after, stride):
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """*depths* are the blocks of the four stages: (2, 2, 2, 2) of Basic is ResNet-18."""

    def __init__(self, block, depths, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, depth in enumerate(depths):
            channels, blocks = 64 * 2**stage, []
            for number in range(depth):
                blocks.append(block(before, channels, 2 if stage > 0 and number == 0 else 1))
                before = channels * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def resnet_for(weights):
    """The network that *weights* (a state dict) belong to, with them in it: ResNet-18, -34, -50, -101 or -152."""
    block = Bottleneck if "layer1.0.conv3.weight" in weights else Basic
    numbers = [re.match(r"layer(\d)\.(\d+)\.", name) for name in weights]
    depths = [1 + max(int(n[2]) for n in numbers if n and n[1] == str(stage)) for stage in (1, 2, 3, 4)]
    net = ResNet(block, depths, classes=len(weights["fc.bias"]))
    net.load_state_dict(weights)
    return net
