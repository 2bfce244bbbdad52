"""BERT's encoder in plain torch, with the parameter names of the published weights.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (NAACL 2019).
"""

from torch import nn
from torch.nn import functional

EPSILON = 1e-12


class Embeddings(nn.Module):
    def __init__(self, words, positions, width):
        super().__init__()
        self.word_embeddings = nn.Embedding(words, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, EPSILON)

    def forward(self, ids):
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])


class Residual(nn.Module):
    """The way back onto the main path."""

    def __init__(self, before, width):
        super().__init__()
        self.dense = nn.Linear(before, width)
        self.LayerNorm = nn.LayerNorm(width, EPSILON)

    def forward(self, x, main):
        return self.LayerNorm(self.dense(x) + main)


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x, mask):
        parts = [
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        ]
        return functional.scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": Residual(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Residual(inner, width)

    def forward(self, x, mask):
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(functional.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Token ids (n, length) and a mask of the real ones (n, length) to vectors (n, length, width)."""

    def __init__(self, *, words, positions, width, heads, inner, layers):
        super().__init__()
        self.embeddings = Embeddings(words, positions, width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))})

    def forward(self, ids, mask):
        x = self.embeddings(ids)
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None, :])
        return x
