"""A tiny model that has one of each layer that PEFT puts LoRA on, with the life of a real one."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

CHANNELS, DEPTH = 4, 2


class EveryLayerConfig(PretrainedConfig):
    model_type = "every_layer"

    def __init__(self, width: int = 32, vocab_size: int = 96, **more: object):
        super().__init__(**more)
        self.width, self.vocab_size = width, vocab_size


class EveryLayer(PreTrainedModel):
    config_class = EveryLayerConfig

    def __init__(self, config: EveryLayerConfig):
        super().__init__(config)
        width, vocabulary = config.width, config.vocab_size
        self.embed = nn.Embedding(vocabulary, width)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.conv2 = nn.Conv2d(CHANNELS, 6, (3, 5), padding=(1, 2))
        self.point = nn.Conv2d(6, CHANNELS, 1)
        self.conv3 = nn.Conv3d(CHANNELS, CHANNELS, (3, 3, 1), padding=(1, 1, 0))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, vocabulary)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: torch.Tensor) -> CausalLMOutput:
        x = self.embed(input_ids)
        batch, length, _ = x.shape
        x = x + self.conv1(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        planes = x.reshape(batch, length, CHANNELS, -1).permute(0, 2, 1, 3)
        planes = planes + self.point(torch.tanh(self.conv2(planes)))
        cubes = planes.reshape(batch, CHANNELS, length, DEPTH, -1).permute(0, 1, 3, 2, 4)
        cubes = cubes + torch.tanh(self.conv3(cubes))
        x = cubes.permute(0, 3, 1, 2, 4).reshape(batch, length, -1)
        return CausalLMOutput(logits=self.linear(self.norm(x)))
